#if canImport(CoreML)
import CoreML
import MoRViTCore

/// What one function of the package returned, read by name.
struct FunctionOutput {
    let function: String
    let features: MLFeatureProvider

    /// The value itself, to hand on.
    func value(_ name: String) throws -> MLFeatureValue {
        guard let value = features.featureValue(for: name) else {
            throw MoRViTError.unexpectedOutput(reason: "\(function) returns no \(name)")
        }
        return value
    }

    func floats(_ name: String) throws -> [Float] {
        guard let array = try value(name).multiArrayValue else {
            throw MoRViTError.unexpectedOutput(reason: "\(name) of \(function) is not an array")
        }
        return MLShapedArray<Float>(converting: array).scalars
    }

    /// nil where the function does not return it.
    func integers(_ name: String) throws -> [Int]? {
        guard features.featureValue(for: name) != nil else { return nil }
        return try floats(name).map { Int($0) }
    }

    func number(_ name: String) throws -> Int {
        guard let numbers = try integers(name), numbers.count == 1 else {
            throw MoRViTError.unexpectedOutput(reason: "\(name) of \(function) is not one number")
        }
        return numbers[0]
    }

    /// False where the function does not return it.
    func flag(_ name: String) throws -> Bool {
        try integers(name)?.first.map { $0 != 0 } ?? false
    }
}
#endif
