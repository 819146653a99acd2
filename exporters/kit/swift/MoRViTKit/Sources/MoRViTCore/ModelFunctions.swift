/// The functions of a model in one runtime, each loaded when it is first used.
package protocol ModelFunctions {
    /// What functions take and return. It stays the runtime's own from the stem to a bucket: nothing is copied.
    associatedtype Value

    /// Loads a function, unless it is loaded, and checks that it is the described model's.
    func load(_ name: String) throws

    /// Prepared pixels as the input `image`.
    func image(_ pixels: RGBPixels) throws -> Value

    /// Runs a function on `actor`, which may suspend meanwhile; returns its outputs by name.
    func run(
        _ name: String, with inputs: [String: Value], on actor: isolated any Actor
    ) async throws -> [String: Value]

    /// The numbers of a value, row by row.
    func numbers(_ value: Value) throws -> [Float]
}

extension ModelDescription {
    /// Checks what a function takes.
    ///
    /// - Throws: ``MoRViTError/modelMismatch(reason:)`` for an input that this model's function does not have.
    package func check(inputs: some Sequence<String>, of function: String) throws {
        let expected = Set(isAdaptive && function != "stem" ? carried : ["image"])
        let found = Set(inputs)
        guard found.isSubset(of: expected) else {  // a bucket may leave a carried value unread
            throw MoRViTError.modelMismatch(
                reason: "function \(function) takes \(found.sorted()), expected \(expected.sorted())"
            )
        }
    }
}
