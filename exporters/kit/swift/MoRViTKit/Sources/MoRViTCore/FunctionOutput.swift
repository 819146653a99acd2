/// What one function of the model returned, read by name.
struct FunctionOutput<Functions: ModelFunctions> {
    let function: String
    let values: [String: Functions.Value]
    let functions: Functions

    /// The value itself, to hand on.
    func value(_ name: String) throws -> Functions.Value {
        guard let value = values[name] else {
            throw MoRViTError.unexpectedOutput(reason: "\(function) returns no \(name)")
        }
        return value
    }

    func floats(_ name: String) throws -> [Float] {
        try functions.numbers(value(name))
    }

    /// nil where the function does not return it.
    func integers(_ name: String) throws -> [Int]? {
        guard values[name] != nil else { return nil }
        let numbers = try floats(name)
        guard numbers.allSatisfy({ $0.isFinite && abs($0) < 1e9 }) else {
            throw MoRViTError.unexpectedOutput(reason: "\(name) of \(function) is not a number")
        }
        return numbers.map { Int($0) }
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
