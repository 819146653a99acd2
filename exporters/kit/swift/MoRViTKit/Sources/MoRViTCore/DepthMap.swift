import Foundation

/// How many steps each patch ran: `side` × `side` numbers, row by row.
public struct DepthMap: Sendable, Hashable {
    /// Patches in a row, and rows.
    public let side: Int
    /// Steps of each patch.
    public let depths: [Int]
    /// Most steps that a patch can run.
    public let steps: Int

    /// Wraps the numbers.
    ///
    /// - Throws: ``MoRViTError/unexpectedOutput(reason:)`` when they are not one for each patch, from 0 to `steps`.
    public init(side: Int, depths: [Int], steps: Int) throws {
        guard
            side > 0, steps >= 0, depths.count == side * side,
            depths.allSatisfy({ (0...steps).contains($0) })
        else {
            throw MoRViTError.unexpectedOutput(
                reason: "got \(depths.count) depths up to \(depths.max() ?? 0), expected \(side * side) up to \(steps)"
            )
        }
        self.side = side
        self.depths = depths
        self.steps = steps
    }

    /// Mean number of steps.
    public var mean: Double { Double(depths.reduce(0, +)) / Double(depths.count) }

    /// The lowest depth of the scale: 0, or 1 where every patch runs a step.
    public var lowest: Int { min(1, depths.min() ?? 0) }
}
