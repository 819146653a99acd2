#if canImport(CoreML)
import Foundation
import MoRViTCore

/// The answer to one image.
public struct Prediction: Sendable {
    /// One number for each class.
    public let logits: [Float]
    /// The bucket that answered.
    public let bucket: DispatchTable.Bucket
    /// Its number in ``DispatchTable/buckets``.
    public let bucketNumber: Int
    /// Was a smaller bucket run first, in vain?
    public let overflow: Bool
    /// How many steps each patch ran; nil where the model does not answer it.
    public let depth: DepthMap?
    /// How long it took.
    public let timing: Timing

    let description: ModelDescription

    /// The most probable classes, best first.
    public func guesses(_ count: Int = 5) -> [Guess] {
        description.guesses(logits: logits, count: count)
    }

    /// The most probable class.
    public var best: Guess? { guesses(1).first }

    /// How long the parts of a prediction took.
    public struct Timing: Sendable {
        /// Resizing, turning and cropping.
        public let preprocess: Duration
        /// What runs before the bucket is known; zero where there is one bucket.
        public let stem: Duration
        /// The bucket's function, and `full` after an overflow. The first run of a bucket includes opening it.
        public let trunk: Duration

        /// All of it.
        public var total: Duration { preprocess + stem + trunk }
    }
}
#endif
