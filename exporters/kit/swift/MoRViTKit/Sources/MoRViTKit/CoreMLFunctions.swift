#if canImport(CoreML)
import CoreML
import MoRViTCore

/// The functions of a compiled Core ML package.
final class CoreMLFunctions: ModelFunctions {
    private let compiled: URL
    private let description: ModelDescription
    private let computeUnits: ComputeUnits
    private var loaded: [String: MLModel] = [:]

    init(compiled: URL, description: ModelDescription, computeUnits: ComputeUnits) {
        self.compiled = compiled
        self.description = description
        self.computeUnits = computeUnits
    }

    func load(_ name: String) throws {
        _ = try model(name)
    }

    func image(_ pixels: RGBPixels) throws -> MLFeatureValue {
        switch description.input {
        case .image:
            return MLFeatureValue(pixelBuffer: try pixels.pixelBuffer())
        case .normalized:
            let numbers = description.preprocessing.normalized(pixels)
            let shape = [1, 3, description.imageSize, description.imageSize]
            return MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: numbers, shape: shape))
        }
    }

    func run(
        _ name: String, with inputs: [String: MLFeatureValue], on actor: isolated any Actor
    ) async throws -> [String: MLFeatureValue] {
        let provider = try MLDictionaryFeatureProvider(dictionary: inputs)
        // the synchronous call blocks the classifier's own queue, and no thread of other tasks
        let output: any MLFeatureProvider = try predict(model(name), from: provider)
        return output.featureNames.reduce(into: [:]) { $0[$1] = output.featureValue(for: $1) }
    }

    func numbers(_ value: MLFeatureValue) throws -> [Float] {
        guard let array = value.multiArrayValue else {
            throw MoRViTError.unexpectedOutput(reason: "got a value of type \(value.type), expected an array")
        }
        return MLShapedArray<Float>(converting: array).scalars
    }

    /// Not async: in an async function, `prediction(from:)` is the asynchronous method of that name.
    private func predict(_ model: MLModel, from inputs: any MLFeatureProvider) throws -> any MLFeatureProvider {
        try model.prediction(from: inputs)
    }

    private func model(_ name: String) throws -> MLModel {
        if let model = loaded[name] { return model }
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
        loaded[name] = model
        return model
    }

    private func check(_ model: MLModel, _ name: String) throws {
        let facts = model.modelDescription.metadata[.creatorDefinedKey] as? [String: String]
        if let checkpoint = facts?["morvit.checkpoint.sha256"], checkpoint != description.checkpoint {
            throw MoRViTError.modelMismatch(
                reason: "got a model of checkpoint \(checkpoint.prefix(12))…, "
                    + "expected \(description.checkpoint.prefix(12))…"
            )
        }
        try description.check(inputs: model.modelDescription.inputDescriptionsByName.keys, of: name)
    }
}
#endif
