#if canImport(CoreML)
import MoRViTCore

/// What classifies images: ``MoRViTClassifier``, or a stand-in of yours in previews and tests.
///
/// ```swift
/// struct PreviewClassifier: MoRViTClassifying {
///     let description: ModelDescription
///     let prediction: Prediction
///
///     func predict(_ image: InputImage) async throws -> Prediction { prediction }
/// }
/// ```
public protocol MoRViTClassifying: Sendable {
    /// What the model is: image size, labels, buckets.
    var description: ModelDescription { get }

    /// Classifies a picture of any size.
    func predict(_ image: InputImage) async throws -> Prediction
}

extension MoRViTClassifier: MoRViTClassifying {}
#endif
