#if canImport(CoreML)
import CoreML
import MoRViTCore

/// The functions of a compiled model, each loaded when it is first used.
final class ModelFunctions {
    private let compiled: URL
    private let description: ModelDescription
    private let computeUnits: ComputeUnits
    private var loaded: [String: MLModel] = [:]

    init(compiled: URL, description: ModelDescription, computeUnits: ComputeUnits) {
        self.compiled = compiled
        self.description = description
        self.computeUnits = computeUnits
    }

    /// Runs a function.
    func run(_ name: String, with inputs: [String: MLFeatureValue]) throws -> FunctionOutput {
        let provider = try MLDictionaryFeatureProvider(dictionary: inputs)
        return FunctionOutput(function: name, features: try load(name).prediction(from: provider))
    }

    /// Loads a function, unless it is loaded, and checks that it is the described model's.
    @discardableResult
    func load(_ name: String) throws -> MLModel {
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
        let isTrunk = description.isAdaptive && name != "stem"
        let expected = Set(isTrunk ? description.carried : ["image"])
        let found = Set(model.modelDescription.inputDescriptionsByName.keys)
        guard found.isSubset(of: expected) else {  // a bucket may leave a carried value unread
            throw MoRViTError.modelMismatch(
                reason: "function \(name) takes \(found.sorted()), expected \(expected.sorted())"
            )
        }
    }
}
#endif
