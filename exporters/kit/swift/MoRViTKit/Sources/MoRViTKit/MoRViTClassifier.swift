#if canImport(CoreML)
import Dispatch
import Foundation
import MoRViTCore

/// Classifies images with an exported MoR-ViT.
///
/// An adaptive model has a stem and several buckets: the stem looks at the image and returns which bucket it needs, and
/// that bucket classifies it. Easy images take a cheap bucket; the result is that of the full model's thresholds.
///
/// ```swift
/// let classifier = try await MoRViTClassifier.load()
/// let prediction = try await classifier.predict(InputImage(contentsOf: url))
/// print(prediction.best?.label ?? "", prediction.bucket.name, prediction.timing.total)
/// ```
///
/// The model's description names its runtime, Core ML or Core AI; the classifier is used in the same way.
///
/// It is an actor with a queue of its own, so that waiting for the model blocks neither the main thread nor other tasks.
/// With Core ML, predictions run one after the other. Core AI's calls suspend, so that predictions of several tasks may
/// overlap. An app may have several classifiers, of the same model or of different ones.
public actor MoRViTClassifier {
    /// What the model is: image size, labels, buckets.
    public nonisolated let description: ModelDescription
    /// Where the runtime may run it.
    public nonisolated let computeUnits: ComputeUnits
    /// Enlarge pictures that are smaller than the model's image instead of refusing them.
    public nonisolated let allowsUpscaling: Bool

    private nonisolated let queue = DispatchSerialQueue(label: "MoRViTClassifier")
    private let model: any PixelClassifying

    /// The queue that predictions run on.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { queue.asUnownedSerialExecutor() }

    private init(
        _ model: any PixelClassifying, description: ModelDescription, computeUnits: ComputeUnits, allowsUpscaling: Bool
    ) {
        self.model = model
        self.description = description
        self.computeUnits = computeUnits
        self.allowsUpscaling = allowsUpscaling
    }

    /// Loads a model that is in the app.
    ///
    /// Loads the function that every prediction needs. Buckets are loaded when an image first needs them.
    ///
    /// - Parameters:
    ///   - name: Name of the model in the app: `Dogs` for `Dogs.mlpackage` or `Dogs.aimodel`, which was added with its
    ///     `Dogs.json`.
    ///   - bundle: The bundle of the target that both were added to.
    ///   - computeUnits: Where the runtime may run the model.
    ///   - allowsUpscaling: Enlarge pictures that are smaller than the model's image instead of refusing them.
    /// - Throws: ``MoRViTError``, or the runtime's own error.
    public static func load(
        named name: String = ModelDescription.defaultName, in bundle: Bundle = .main,
        computeUnits: ComputeUnits = .all, allowsUpscaling: Bool = false
    ) async throws -> MoRViTClassifier {
        try await load(
            .named(name, in: bundle), description: ModelDescription(named: name, in: bundle),
            computeUnits: computeUnits, allowsUpscaling: allowsUpscaling
        )
    }

    /// Loads the model at `url`: an `.mlmodelc` or `.mlpackage` of Core ML, an `.aimodel` or `.aimodelc` of Core AI.
    ///
    /// An `.mlpackage` is compiled once and kept in the caches; Core AI keeps what it specializes in its own.
    /// Loads the function that every prediction needs. Buckets are loaded when an image first needs them.
    ///
    /// - Parameters:
    ///   - url: Where the model is.
    ///   - description: What the model is; nil: the JSON file beside it, `Dogs.json` for `Dogs.mlpackage`.
    ///   - computeUnits: Where the runtime may run the model.
    ///   - allowsUpscaling: Enlarge pictures that are smaller than the model's image instead of refusing them.
    /// - Throws: ``MoRViTError``, or the runtime's own error.
    public static func load(
        contentsOf url: URL, description: ModelDescription? = nil, computeUnits: ComputeUnits = .all,
        allowsUpscaling: Bool = false
    ) async throws -> MoRViTClassifier {
        guard FileManager.default.fileExists(atPath: url.path) else {
            throw MoRViTError.modelNotFound(place: url.path)
        }
        let beside = url.deletingPathExtension().appendingPathExtension("json")
        return try await load(
            .url(url), description: description ?? ModelDescription(contentsOf: beside),
            computeUnits: computeUnits, allowsUpscaling: allowsUpscaling
        )
    }

    private static func load(
        _ place: ModelPlace, description: ModelDescription, computeUnits: ComputeUnits, allowsUpscaling: Bool
    ) async throws -> MoRViTClassifier {
        let classifier = MoRViTClassifier(
            try await place.open(description, computeUnits: computeUnits), description: description,
            computeUnits: computeUnits, allowsUpscaling: allowsUpscaling
        )
        try await classifier.loadEntry()
        return classifier
    }

    private func loadEntry() throws {
        try model.load(description.functions[0])
    }

    /// Loads all functions, so that no later prediction waits for it.
    public func loadAll() throws {
        for name in description.functions {
            try model.load(name)
        }
    }

    /// Classifies a picture of any size: turns it upright, resizes, crops, runs the model.
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or the runtime's own error.
    public func predict(_ image: InputImage) async throws -> Prediction {
        try Task.checkCancellation()
        let watch = Stopwatch()
        return try await model.predict(prepared(image), since: watch, on: self)
    }

    /// Classifies pixels that are already resized and cropped.
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or the runtime's own error.
    public func predict(_ pixels: RGBPixels) async throws -> Prediction {
        try Task.checkCancellation()
        let watch = Stopwatch()
        try pixels.check(imageSize: description.imageSize)
        return try await model.predict(pixels, since: watch, on: self)
    }

    /// Features or tokens of a picture of any size, of a model that was exported with `--output features` or `tokens`.
    ///
    /// ```swift
    /// let embedding = try await classifier.embed(InputImage(contentsOf: url))
    /// print(embedding.shape, embedding.values)
    /// ```
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or the runtime's own error.
    public func embed(_ image: InputImage) async throws -> Embedding {
        try Task.checkCancellation()
        let watch = Stopwatch()
        return try await model.embed(prepared(image), since: watch, on: self)
    }

    /// Features or tokens of pixels that are already resized and cropped.
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or the runtime's own error.
    public func embed(_ pixels: RGBPixels) async throws -> Embedding {
        try Task.checkCancellation()
        let watch = Stopwatch()
        try pixels.check(imageSize: description.imageSize)
        return try await model.embed(pixels, since: watch, on: self)
    }

    private func prepared(_ image: InputImage) throws -> RGBPixels {
        try ImagePreparation(preprocessing: description.preprocessing, allowsUpscaling: allowsUpscaling)
            .pixels(of: image)
    }
}
#endif
