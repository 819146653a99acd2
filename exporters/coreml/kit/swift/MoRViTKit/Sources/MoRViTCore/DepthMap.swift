import Foundation

/// How many steps each patch ran: `side` × `side` numbers, row by row.
public struct DepthMap: Sendable, Equatable {
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
        guard depths.count == side * side, depths.allSatisfy({ (0...steps).contains($0) }) else {
            throw MoRViTError.unexpectedOutput(
                reason: "got \(depths.count) depths up to \(depths.max() ?? 0), expected \(side * side) up to \(steps)"
            )
        }
        self.side = side
        self.depths = depths
        self.steps = steps
    }

    /// Mean number of steps.
    public var mean: Double {
        depths.isEmpty ? 0 : Double(depths.reduce(0, +)) / Double(depths.count)
    }

    /// The lowest depth of the scale: 0, or 1 where every patch runs a step.
    public var lowest: Int { min(1, depths.min() ?? 0) }

    /// The heat map, `side` × `side` pixels: red, green, blue and opaque alpha of each patch, row by row.
    public func rgba() -> [UInt8] {
        depths.flatMap { depth -> [UInt8] in
            let colour = Self.colour(depth: Double(depth), lowest: lowest, highest: steps)
            return colour.map { UInt8(($0 * 255).rounded()) } + [255]
        }
    }

    /// Red, green and blue in [0, 1] of a depth: cool is shallow, warm is deep.
    ///
    /// The scale is that of `morvit-deploy predict --depth-map`.
    public static func colour(depth: Double, lowest: Int, highest: Int) -> [Double] {
        let level = (depth - Double(lowest)) / Double(max(highest - lowest, 1))
        // most patches are shallow: the power spreads the colours of the first steps apart
        let spread = pow(min(max(level, 0), 1), 0.75)
        let place = min(Int(spread * 256), 255)  // a table of 256 colours
        return entry(Double(place) / 255)
    }

    private static let ramp: [[Double]] = [
        0x3450b4, 0x3f93d6, 0x74cbc6, 0xf4e285, 0xf58f37, 0xcf1d2d,
    ].map { (code: Int) in [16, 8, 0].map { Double((code >> $0) & 0xff) / 255 } }

    private static func entry(_ position: Double) -> [Double] {
        let scaled = position * Double(ramp.count - 1)
        let first = min(Int(scaled), ramp.count - 2)
        let part = scaled - Double(first)
        return zip(ramp[first], ramp[first + 1]).map { $0 + part * ($1 - $0) }
    }
}
