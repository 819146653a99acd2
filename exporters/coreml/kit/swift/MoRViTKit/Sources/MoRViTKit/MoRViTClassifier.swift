#if canImport(CoreML)
import CoreML
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
/// It is an actor: predictions run one after the other, on a queue of its own, so that waiting for Core ML blocks
/// neither the main thread nor other tasks. An app may have several, of the same model or of different ones.
public actor MoRViTClassifier {
    /// What the model is: image size, labels, buckets.
    public nonisolated let description: ModelDescription
    /// Where Core ML may run it.
    public nonisolated let computeUnits: ComputeUnits
    /// Enlarge pictures that are smaller than the model's image instead of refusing them.
    public nonisolated let allowsUpscaling: Bool

    private nonisolated let queue = DispatchSerialQueue(label: "MoRViTClassifier")
    private let functions: ModelFunctions

    /// The queue that predictions run on.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { queue.asUnownedSerialExecutor() }

    private init(compiled: URL, description: ModelDescription, computeUnits: ComputeUnits, allowsUpscaling: Bool) {
        self.description = description
        self.computeUnits = computeUnits
        self.allowsUpscaling = allowsUpscaling
        functions = ModelFunctions(compiled: compiled, description: description, computeUnits: computeUnits)
    }

    /// Loads a model that is in the app.
    ///
    /// Loads the function that every prediction needs. Buckets are loaded when an image first needs them.
    ///
    /// - Parameters:
    ///   - name: Name of the model in the app: `Dogs` for `Dogs.mlpackage`, which was added with its `Dogs.json`.
    ///   - bundle: The bundle of the target that both were added to.
    ///   - computeUnits: Where Core ML may run the model.
    ///   - allowsUpscaling: Enlarge pictures that are smaller than the model's image instead of refusing them.
    /// - Throws: ``MoRViTError``, or Core ML's own error.
    public static func load(
        named name: String = ModelDescription.defaultName, in bundle: Bundle = .main,
        computeUnits: ComputeUnits = .all, allowsUpscaling: Bool = false
    ) async throws -> MoRViTClassifier {
        try await load(
            contentsOf: CompiledModel.url(named: name, in: bundle),
            description: ModelDescription(named: name, in: bundle), computeUnits: computeUnits,
            allowsUpscaling: allowsUpscaling
        )
    }

    /// Loads the model at `url`, an `.mlmodelc` or an `.mlpackage`; the latter is compiled once and kept in the caches.
    ///
    /// Loads the function that every prediction needs. Buckets are loaded when an image first needs them.
    ///
    /// - Parameters:
    ///   - url: Where the model is.
    ///   - description: What the model is; nil: the JSON file beside it, `Dogs.json` for `Dogs.mlpackage`.
    ///   - computeUnits: Where Core ML may run the model.
    ///   - allowsUpscaling: Enlarge pictures that are smaller than the model's image instead of refusing them.
    /// - Throws: ``MoRViTError``, or Core ML's own error.
    public static func load(
        contentsOf url: URL, description: ModelDescription? = nil, computeUnits: ComputeUnits = .all,
        allowsUpscaling: Bool = false
    ) async throws -> MoRViTClassifier {
        let compiled = try await CompiledModel.url(for: url)
        let beside = url.deletingPathExtension().appendingPathExtension("json")
        let classifier = MoRViTClassifier(
            compiled: compiled, description: try description ?? ModelDescription(contentsOf: beside),
            computeUnits: computeUnits, allowsUpscaling: allowsUpscaling
        )
        try await classifier.loadEntry()
        return classifier
    }

    /// Loads all functions, so that no later prediction waits for it.
    public func loadAll() throws {
        for name in description.functions {
            try functions.load(name)
        }
    }

    /// Classifies a picture of any size: turns it upright, resizes, crops, runs the model.
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or Core ML's own error.
    public func predict(_ image: InputImage) throws -> Prediction {
        try Task.checkCancellation()
        var watch = Stopwatch()
        let preparation = ImagePreparation(
            preprocessing: description.preprocessing, allowsUpscaling: allowsUpscaling
        )
        return try run(preparation.pixels(of: image), &watch)
    }

    /// Classifies pixels that are already resized and cropped.
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or Core ML's own error.
    public func predict(_ pixels: RGBPixels) throws -> Prediction {
        try Task.checkCancellation()
        var watch = Stopwatch()
        try pixels.check(imageSize: description.imageSize)
        return try run(pixels, &watch)
    }

    private func loadEntry() throws {
        try functions.load(description.functions[0])
    }

    private func run(_ pixels: RGBPixels, _ watch: inout Stopwatch) throws -> Prediction {
        let image = try feature(pixels)
        let preprocess = watch.lap()
        try Task.checkCancellation()
        return description.isAdaptive
            ? try runAdaptive(image, preprocess: preprocess) : try runSingle(image, preprocess: preprocess)
    }

    private func feature(_ pixels: RGBPixels) throws -> MLFeatureValue {
        switch description.input {
        case .image:
            return MLFeatureValue(pixelBuffer: try pixels.pixelBuffer())
        case .normalized:
            let numbers = description.preprocessing.normalized(pixels)
            let shape = [1, 3, description.imageSize, description.imageSize]
            return MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: numbers, shape: shape))
        }
    }

    private func runSingle(_ image: MLFeatureValue, preprocess: Duration) throws -> Prediction {
        var watch = Stopwatch()
        let output = try functions.run("main", with: ["image": image])
        return try prediction(
            from: output, stem: nil, choice: DispatchTable.Choice(bucket: 0, didOverflow: false),
            timing: Prediction.Timing(preprocess: preprocess, trunk: watch.lap())
        )
    }

    private func runAdaptive(_ image: MLFeatureValue, preprocess: Duration) throws -> Prediction {
        let table = description.dispatch
        var watch = Stopwatch()
        let stem = try functions.run("stem", with: ["image": image])
        let predicted = try stem.number("bucket")
        guard table.buckets.indices.contains(predicted) else {
            throw MoRViTError.unexpectedOutput(
                reason: "got bucket \(predicted), expected 0 to \(table.last)"
            )
        }
        // the stem's own values go on as they are: nothing is copied
        let carried = try Dictionary(
            uniqueKeysWithValues: description.carried.map { ($0, try stem.value($0)) }
        )
        let stemTime = watch.lap()
        try Task.checkCancellation()
        var output = try functions.run(table.buckets[predicted].name, with: carried)
        let choice = table.outcome(of: predicted, didOverflow: try output.flag("overflow"))
        if choice.bucket != predicted {
            try Task.checkCancellation()
            output = try functions.run(table.buckets[choice.bucket].name, with: carried)
        }
        return try prediction(
            from: output, stem: stem, choice: choice,
            timing: Prediction.Timing(preprocess: preprocess, stem: stemTime, trunk: watch.lap())
        )
    }

    private func prediction(
        from output: FunctionOutput, stem: FunctionOutput?, choice: DispatchTable.Choice, timing: Prediction.Timing
    ) throws -> Prediction {
        let logits = try output.floats("logits")
        guard logits.count == description.classes else {
            throw MoRViTError.unexpectedOutput(
                reason: "got \(logits.count) logits, expected \(description.classes)"
            )
        }
        var depth: DepthMap?
        if description.answersDepth {
            let depths = try output.integers("depth") ?? stem?.integers("depth")
            guard let depths else {
                throw MoRViTError.unexpectedOutput(reason: "depth is missing")
            }
            depth = try DepthMap(side: description.patchesPerSide, depths: depths, steps: description.steps)
        }
        return Prediction(
            logits: logits, labels: description.labels, bucket: description.dispatch.buckets[choice.bucket],
            bucketIndex: choice.bucket, didOverflow: choice.didOverflow, depth: depth, timing: timing,
            headActivation: description.headActivation ?? .softmax
        )
    }
}

/// Time from lap to lap.
private struct Stopwatch {
    private var start = ContinuousClock.now

    mutating func lap() -> Duration {
        let now = ContinuousClock.now
        defer { start = now }
        return now - start
    }
}
#endif
