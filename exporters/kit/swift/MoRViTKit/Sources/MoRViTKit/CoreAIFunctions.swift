#if canImport(CoreAI)
import CoreAI
import Foundation
import MoRViTCore

/// The functions of a Core AI model.
@available(iOS 27, macOS 27, tvOS 27, watchOS 27, visionOS 27, *)
final class CoreAIFunctions: ModelFunctions {
    private let model: AIModel
    private let description: ModelDescription
    private var loaded: [String: InferenceFunction] = [:]

    /// Opens a model, which the system specializes for this device the first time and then keeps in its cache.
    init(contentsOf url: URL, description: ModelDescription, computeUnits: ComputeUnits) async throws {
        self.description = description
        model = try await AIModel(contentsOf: url, options: computeUnits.coreAI)
    }

    /// The model in a bundle: compiled ahead of time for this device's architecture, or as exported.
    static func url(named name: String, in bundle: Bundle) throws -> URL {
        let compiled = "\(name).\(AIModel.deviceArchitectureName)"
        guard
            let url = bundle.url(forResource: compiled, withExtension: "aimodelc")
                ?? bundle.url(forResource: name, withExtension: "aimodel")
        else {
            throw MoRViTError.modelNotFound(place: "\(bundle.bundlePath) named \(name)")
        }
        return url
    }

    func load(_ name: String) throws {
        _ = try function(name)
    }

    func image(_ pixels: RGBPixels) -> NDArray {
        let size = description.imageSize
        switch description.input {
        case .image:
            return NDArray(scalars: pixels.bytes, shape: [1, size, size, 3])
        case .normalized:
            return NDArray(scalars: description.preprocessing.normalized(pixels), shape: [1, 3, size, size])
        }
    }

    func run(
        _ name: String, with inputs: [String: NDArray], on actor: isolated any Actor
    ) async throws -> [String: NDArray] {
        try await Self.outputs(of: function(name), inputs)
    }

    func numbers(_ value: NDArray) throws -> [Float] {
        switch value.scalarType {
        case .float32: return try scalars(of: value, as: Float.self)
        case .int32: return try scalars(of: value, as: Int32.self).map { Float($0) }
        default:
            throw MoRViTError.unexpectedOutput(
                reason: "got values of type \(value.scalarType), expected float32 or int32"
            )
        }
    }

    private func function(_ name: String) throws -> InferenceFunction {
        if let function = loaded[name] { return function }
        guard let function = try model.loadFunction(named: name) else {
            throw MoRViTError.modelMismatch(
                reason: "got functions \(model.functionNames.sorted()), expected \(description.functions)"
            )
        }
        try description.check(inputs: function.descriptor.inputNames, of: name)
        loaded[name] = function
        return function
    }

    /// Not on the actor, so that only arrays go from and to it. A function may leave carried values unread.
    private static func outputs(
        of function: InferenceFunction, _ inputs: [String: NDArray]
    ) async throws -> [String: NDArray] {
        let names = function.descriptor.inputNames
        var outputs = try await function.run(inputs: inputs.filter { names.contains($0.key) })
        var values: [String: NDArray] = [:]
        for name in function.descriptor.outputNames {
            values[name] = outputs.remove(name)?.ndArray
        }
        return values
    }

    /// Row by row. Rows may be padded: a compute unit chooses the strides of what it returns.
    private func scalars<Scalar: BitwiseCopyable>(of array: NDArray, as type: Scalar.Type) throws -> [Scalar] {
        let view = array.view(as: type)
        guard view.interleaveLayout == nil else {
            throw MoRViTError.unexpectedOutput(reason: "got interleaved values, expected rows")
        }
        return view.withUnsafePointer { first, shape, strides in
            let count = (0..<shape.count).reduce(1) { $0 * shape[$1] }
            return (0..<count).map { place in
                var (rest, offset) = (place, 0)
                for axis in (0..<shape.count).reversed() {
                    offset += rest % shape[axis] * strides[axis]
                    rest /= shape[axis]
                }
                return first[offset]
            }
        }
    }
}
#endif
