#if canImport(CoreML)
import CoreML
import CoreVideo
import Dispatch
import Foundation
import MoRViTCore

/// Classifies images with an exported MoR-ViT.
///
/// An adaptive model has a stem and several buckets: the stem looks at the image and says which bucket it needs, and
/// that bucket answers. Easy images take a cheap bucket; the answer is that of the full model's thresholds either way.
///
/// ```swift
/// let classifier = try await MoRViTClassifier.load()
/// let prediction = try await classifier.predict(InputImage(pixelBuffer, orientation: .right))
/// print(prediction.best?.label ?? "", prediction.bucket.name, prediction.timing.total)
/// ```
///
/// It is an actor: predictions run one after the other, on a queue of its own, so that waiting for Core ML holds up
/// neither the main thread nor other tasks.
public actor MoRViTClassifier {
    /// What the model is: image size, labels, buckets.
    public nonisolated let description: ModelDescription
    /// Where Core ML may run it.
    public nonisolated let computeUnits: ComputeUnits
    /// Enlarge pictures that are smaller than the model's image instead of refusing them.
    public nonisolated let allowsUpscaling: Bool

    private nonisolated let queue = DispatchSerialQueue(label: "MoRViTClassifier")
    private let compiled: URL
    private var opened: [String: MLModel] = [:]

    /// The queue that predictions run on.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { queue.asUnownedSerialExecutor() }

    private init(compiled: URL, description: ModelDescription, computeUnits: ComputeUnits, allowsUpscaling: Bool) {
        self.compiled = compiled
        self.description = description
        self.computeUnits = computeUnits
        self.allowsUpscaling = allowsUpscaling
    }

    /// Opens the model that is in the app: `MoRViT.mlpackage`, added to the target that `bundle` belongs to.
    ///
    /// Opens the function that every prediction needs. Buckets are opened when an image first needs them.
    ///
    /// - Throws: ``MoRViTError``, or Core ML's own error.
    public static func load(
        from bundle: Bundle = .main, computeUnits: ComputeUnits = .all, allowsUpscaling: Bool = false
    ) async throws -> MoRViTClassifier {
        try await load(
            contentsOf: CompiledModel.url(in: bundle), computeUnits: computeUnits, allowsUpscaling: allowsUpscaling
        )
    }

    /// Opens the model at `url`, a `.mlmodelc` or an `.mlpackage`; the latter is compiled once and kept in the caches.
    ///
    /// Opens the function that every prediction needs. Buckets are opened when an image first needs them.
    ///
    /// - Parameter description: Of the model; nil: the one that this package was generated with.
    /// - Throws: ``MoRViTError``, or Core ML's own error.
    public static func load(
        contentsOf url: URL, description: ModelDescription? = nil, computeUnits: ComputeUnits = .all,
        allowsUpscaling: Bool = false
    ) async throws -> MoRViTClassifier {
        let classifier = MoRViTClassifier(
            compiled: try await CompiledModel.url(for: url), description: try description ?? .bundled(),
            computeUnits: computeUnits, allowsUpscaling: allowsUpscaling
        )
        try await classifier.openEntry()
        return classifier
    }

    /// Opens all functions, so that no later prediction waits for it.
    public func openAll() throws {
        for name in description.functions {
            _ = try function(name)
        }
    }

    /// Classifies a picture of any size: resizes, turns upright, crops, runs.
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or Core ML's own error.
    public func predict(_ image: InputImage) throws -> Prediction {
        try predict { try $0.pixelBuffer(of: image) }
    }

    /// Classifies pixels that are already resized and cropped.
    ///
    /// - Throws: ``MoRViTError``, `CancellationError` when the task was cancelled, or Core ML's own error.
    public func predict(_ pixels: RGBPixels) throws -> Prediction {
        try predict { try $0.pixelBuffer(of: pixels) }
    }

    private func predict(preparing: (ImagePreparation) throws -> CVPixelBuffer) throws -> Prediction {
        try Task.checkCancellation()
        var watch = Stopwatch()
        let preparation = ImagePreparation(
            preprocessing: description.preprocessing, allowsUpscaling: allowsUpscaling
        )
        let image = try feature(preparing(preparation), preparation)
        let preprocess = watch.lap()
        try Task.checkCancellation()
        return description.isAdaptive
            ? try runAdaptive(image, preprocess: preprocess) : try runSingle(image, preprocess: preprocess)
    }

    private func runSingle(_ image: MLFeatureValue, preprocess: Duration) throws -> Prediction {
        var watch = Stopwatch()
        let answer = try run("main", with: ["image": image])
        return try prediction(
            from: answer, stem: nil, choice: DispatchTable.Choice(bucket: 0, overflow: false),
            timing: Prediction.Timing(preprocess: preprocess, stem: .zero, trunk: watch.lap())
        )
    }

    private func runAdaptive(_ image: MLFeatureValue, preprocess: Duration) throws -> Prediction {
        let table = description.dispatch
        var watch = Stopwatch()
        let stem = try run("stem", with: ["image": image])
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
        var answer = try run(table.buckets[predicted].name, with: carried)
        let choice = table.outcome(of: predicted, overflow: try answer.flag("overflow"))
        if choice.bucket != predicted {
            try Task.checkCancellation()
            answer = try run(table.buckets[choice.bucket].name, with: carried)
        }
        return try prediction(
            from: answer, stem: stem, choice: choice,
            timing: Prediction.Timing(preprocess: preprocess, stem: stemTime, trunk: watch.lap())
        )
    }

    private func prediction(
        from answer: Answer, stem: Answer?, choice: DispatchTable.Choice, timing: Prediction.Timing
    ) throws -> Prediction {
        let logits = try answer.floats("logits")
        guard logits.count == description.classes else {
            throw MoRViTError.unexpectedOutput(
                reason: "got \(logits.count) logits, expected \(description.classes)"
            )
        }
        var depth: DepthMap?
        if description.answersDepth {
            let depths = try answer.integers("depth") ?? stem?.integers("depth")
            guard let depths else {
                throw MoRViTError.unexpectedOutput(reason: "depth is missing")
            }
            depth = try DepthMap(side: description.patchesPerSide, depths: depths, steps: description.steps)
        }
        return Prediction(
            logits: logits, bucket: description.dispatch.buckets[choice.bucket], bucketNumber: choice.bucket,
            overflow: choice.overflow, depth: depth, timing: timing, description: description
        )
    }

    private func feature(_ buffer: CVPixelBuffer, _ preparation: ImagePreparation) throws -> MLFeatureValue {
        switch description.input {
        case .image:
            return MLFeatureValue(pixelBuffer: buffer)
        case .normalised:
            let side = description.imageSize
            let numbers = description.preprocessing.normalise(try preparation.pixels(of: buffer))
            let array = MLShapedArray<Float>(scalars: numbers, shape: [1, 3, side, side])
            return MLFeatureValue(shapedArray: array)
        }
    }

    private func run(_ name: String, with inputs: [String: MLFeatureValue]) throws -> Answer {
        let provider = try MLDictionaryFeatureProvider(dictionary: inputs)
        return Answer(function: name, features: try function(name).prediction(from: provider))
    }

    private func openEntry() throws {
        _ = try function(description.functions[0])
    }

    private func function(_ name: String) throws -> MLModel {
        if let model = opened[name] { return model }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits.coreML
        if description.functions.count > 1 {
            guard #available(iOS 18, macOS 15, tvOS 18, watchOS 11, visionOS 2, *) else {
                throw MoRViTError.needsNewerSystem(minimumIOS: description.minimumIOS)
            }
            configuration.functionName = name
        }
        let model = try MLModel(contentsOf: compiled, configuration: configuration)
        try check(model, name)
        opened[name] = model
        return model
    }

    private func check(_ model: MLModel, _ name: String) throws {
        let isTrunk = description.isAdaptive && name != "stem"
        let facts = model.modelDescription.metadata[.creatorDefinedKey] as? [String: String]
        if let checkpoint = facts?["morvit.checkpoint.sha256"], checkpoint != description.checkpoint {
            throw MoRViTError.modelMismatch(
                reason: "it was made from checkpoint \(checkpoint.prefix(12))…, expected \(description.checkpoint.prefix(12))…"
            )
        }
        let wanted = Set(isTrunk ? description.carried : ["image"])
        let found = Set(model.modelDescription.inputDescriptionsByName.keys)
        guard found.isSubset(of: wanted) else {  // a bucket may leave a carried value unread
            throw MoRViTError.modelMismatch(
                reason: "function \(name) takes \(found.sorted()), expected \(wanted.sorted())"
            )
        }
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
