import Foundation

extension DepthMap {
    /// How a heat map is enlarged.
    public enum Interpolation: Sendable, Hashable, CaseIterable {
        /// Each patch is a square of one color.
        case nearest
        /// Depths change linearly from the center of a patch to the next.
        case linear
    }

    /// The heat map: red, green, blue and opaque alpha of each pixel, row by row, in sRGB.
    ///
    /// - Parameters:
    ///   - size: Pixels in a row, and rows; nil: one pixel for each patch.
    ///   - interpolation: How the map is enlarged.
    /// - Returns: 4 × size × size bytes; none where `size` is less than 1.
    public func rgba(size: Int? = nil, interpolation: Interpolation = .nearest) -> [UInt8] {
        let size = size ?? side
        guard size > 0 else { return [] }
        let places = (0..<size).map { (Double($0) + 0.5) * Double(side) / Double(size) - 0.5 }
        var bytes = [UInt8]()
        bytes.reserveCapacity(4 * size * size)
        for row in places {
            for column in places {
                let depth = depth(row: row, column: column, interpolation)
                bytes += Self.table[Self.place(of: depth, lowest: lowest, highest: steps)]
            }
        }
        return bytes
    }

    /// Red, green and blue in [0, 1] of a depth, in sRGB: cool is shallow, warm is deep.
    ///
    /// The scale runs from `lowest` to `highest` through `#3552b6`, `#3f93d6`, `#74cbc6`, `#f4e285`, `#f58f37` and
    /// `#cf1d2d`; it is that of `morvit-deploy predict --depth-map`. On the black background of dark mode each of its
    /// colors has a contrast of at least 3:1.
    public static func color(depth: Double, lowest: Int, highest: Int) -> [Double] {
        color(at: Double(place(of: depth, lowest: lowest, highest: highest)) / 255)
    }

    /// The depth between patches; `row` and `column` count patches, from the center of the first.
    private func depth(row: Double, column: Double, _ interpolation: Interpolation) -> Double {
        func at(_ row: Int, _ column: Int) -> Double {
            Double(depths[min(max(row, 0), side - 1) * side + min(max(column, 0), side - 1)])
        }
        guard interpolation == .linear else {
            return at(Int((row + 0.5).rounded(.down)), Int((column + 0.5).rounded(.down)))
        }
        let (top, left) = (row.rounded(.down), column.rounded(.down))
        let (down, right) = (row - top, column - left)
        let (first, start) = (Int(top), Int(left))
        let above = at(first, start) * (1 - right) + at(first, start + 1) * right
        let below = at(first + 1, start) * (1 - right) + at(first + 1, start + 1) * right
        return above * (1 - down) + below * down
    }

    /// The place of a depth in ``table``.
    private static func place(of depth: Double, lowest: Int, highest: Int) -> Int {
        let level = (depth - Double(lowest)) / Double(max(highest - lowest, 1))
        // most patches are shallow: the power spreads the colors of the first steps apart
        let spread = pow(min(max(level, 0), 1), 0.75)
        return min(Int(spread * 256), 255)
    }

    /// 256 colors, as bytes.
    private static let table: [[UInt8]] = (0..<256).map { place in
        color(at: Double(place) / 255).map { UInt8(($0 * 255).rounded()) } + [255]
    }

    private static let ramp: [[Double]] = [
        0x3552b6, 0x3f93d6, 0x74cbc6, 0xf4e285, 0xf58f37, 0xcf1d2d,
    ].map { (code: Int) in [16, 8, 0].map { Double((code >> $0) & 0xff) / 255 } }

    private static func color(at position: Double) -> [Double] {
        let scaled = position * Double(ramp.count - 1)
        let first = min(Int(scaled), ramp.count - 2)
        let part = scaled - Double(first)
        return zip(ramp[first], ramp[first + 1]).map { $0 + part * ($1 - $0) }
    }
}
