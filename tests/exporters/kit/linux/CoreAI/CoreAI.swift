// A stand-in for Apple's Core AI on Linux, of the declarations that MoRViTKit uses, after their documentation at
// developer.apple.com/documentation/coreai (2026-09). It shows that MoRViTKit compiles against these names and types,
// and what it does with the values that a model returns. It is no evidence of what Apple's framework does.

import Foundation

/// A model of constants: `functions.json` in its folder has the inputs and the outputs of each function.
public struct AIModel: Sendable {
    public static var deviceArchitectureName: String { "h18p" }

    private let functions: [String: Function]
    public var functionNames: [String] { functions.keys.sorted() }

    public init(contentsOf modelURL: URL, options: SpecializationOptions = .default) async throws {
        await Task.yield()
        let data = try Data(contentsOf: modelURL.appendingPathComponent("functions.json"))
        functions = try JSONDecoder().decode([String: Function].self, from: data)
    }

    public func loadFunction(named functionName: String) throws -> InferenceFunction? {
        functions[functionName].map { InferenceFunction(name: functionName, function: $0) }
    }
}

struct Function: Decodable, Sendable {
    struct Output: Decodable, Sendable {
        let shape: [Int]
        let strides: [Int]?
        let scalarType: String
        let values: [Double]
    }

    let inputs: [String: [Int]]  // name to shape
    let outputs: [String: Output]
}

public struct InferenceFunction: Sendable {
    public struct Outputs {
        var values: [String: InferenceValue]

        public mutating func remove(_ name: String) -> InferenceValue? { values.removeValue(forKey: name) }
    }

    public struct Refused: Error {
        public let reason: String
    }

    public let descriptor: InferenceFunctionDescriptor
    private let function: Function

    init(name: String, function: Function) {
        let (inputs, outputs) = (function.inputs.keys.sorted(), function.outputs.keys.sorted())
        descriptor = InferenceFunctionDescriptor(name: name, inputNames: inputs, outputNames: outputs)
        self.function = function
    }

    /// Like Core AI, it refuses inputs that it does not have and shapes that do not fit.
    public func run(inputs: [String: NDArray]) async throws -> Outputs {
        await Task.yield()
        let shapes = inputs.mapValues(\.shape)
        guard shapes == function.inputs else {
            throw Refused(reason: "got \(shapes), expected \(function.inputs)")
        }
        return Outputs(values: function.outputs.mapValues { InferenceValue(ndArray: NDArray($0)) })
    }
}

public struct InferenceFunctionDescriptor: Sendable {
    public let name: String
    public let inputNames: [String]
    public let outputNames: [String]
}

public struct InferenceValue: Sendable {
    public let ndArray: NDArray?
}

public struct SpecializationOptions: Sendable, Equatable {
    public static let `default` = SpecializationOptions(allowed: [.cpu, .gpu, .neuralEngine], preferred: nil)
    public static let cpuOnly = SpecializationOptions(allowed: [.cpu], preferred: nil)

    public let allowedComputeUnitKinds: Set<ComputeUnitKind>
    public let preferredComputeUnitKind: ComputeUnitKind?

    private init(allowed: Set<ComputeUnitKind>, preferred: ComputeUnitKind?) {
        allowedComputeUnitKinds = allowed
        preferredComputeUnitKind = preferred
    }

    public init(preferredComputeUnitKind: ComputeUnitKind) {
        self.init(allowed: [.cpu, .gpu, .neuralEngine], preferred: preferredComputeUnitKind)
    }
}

public enum ComputeUnitKind: Sendable, Hashable {
    case cpu, gpu, neuralEngine
}

/// Rows of scalars, which strides may pad.
public struct NDArray: Sendable {
    public enum ScalarType: Sendable, Hashable {
        case uint8, int32, float16, float32
    }

    public struct InterleaveLayout: Sendable, Hashable {}

    public let shape: [Int]
    public let strides: [Int]
    public let scalarType: ScalarType
    private let bytes: [UInt8]

    public init<Scalar: BitwiseCopyable>(scalars: some Sequence<Scalar>, shape: [Int]) {
        let types: [ObjectIdentifier: ScalarType] = [
            ObjectIdentifier(UInt8.self): .uint8, ObjectIdentifier(Int32.self): .int32,
            ObjectIdentifier(Float.self): .float32,
        ]
        let values = Array(scalars)
        precondition(values.count == shape.reduce(1, *))
        self.init(values, types[ObjectIdentifier(Scalar.self)]!, shape: shape, strides: Self.rowMajor(shape))
    }

    private init<Scalar: BitwiseCopyable>(
        _ memory: [Scalar], _ scalarType: ScalarType, shape: [Int], strides: [Int]
    ) {
        self.shape = shape
        self.strides = strides
        self.scalarType = scalarType
        bytes = memory.withUnsafeBytes { Array($0) }
    }

    init(_ output: Function.Output) {
        let strides = output.strides ?? Self.rowMajor(output.shape)
        switch output.scalarType {
        case "int32":
            self.init(output.values.map { Int32($0) }, .int32, shape: output.shape, strides: strides)
        case "float32":
            self.init(output.values.map { Float($0) }, .float32, shape: output.shape, strides: strides)
        default:
            self.init(output.values.map { UInt16($0) }, .float16, shape: output.shape, strides: strides)
        }
    }

    private static func rowMajor(_ shape: [Int]) -> [Int] {
        shape.indices.map { shape[($0 + 1)...].reduce(1, *) }
    }

    public func view<Element: BitwiseCopyable>(as type: Element.Type = Element.self) -> View<Element> {
        View(shape: shape, strides: strides, bytes: bytes)
    }

    public struct View<Element: BitwiseCopyable> {
        let shape: [Int]
        let strides: [Int]
        let bytes: [UInt8]

        public var interleaveLayout: InterleaveLayout? { nil }

        public func withUnsafePointer<R, E: Error>(
            _ body: (UnsafePointer<Element>, Span<Int>, Span<Int>) throws(E) -> R
        ) throws(E) -> R {
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
            defer { memory.deallocate() }
            memory.copyBytes(from: bytes)
            let first = memory.baseAddress!.assumingMemoryBound(to: Element.self)
            return try body(UnsafePointer(first), Span(elements: shape), Span(elements: strides))
        }
    }
}

/// The standard library's of Swift 6.2: no sequence.
public struct Span<Element> {
    let elements: [Element]

    public var count: Int { elements.count }
    public subscript(place: Int) -> Element { elements[place] }
}
