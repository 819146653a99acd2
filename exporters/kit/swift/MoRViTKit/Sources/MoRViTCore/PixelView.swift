/// Pixels of four bytes in memory, seen upright: they are read where they are, and nothing is copied to turn a picture.
///
/// The memory must outlive the view and begin at a multiple of four bytes.
package struct PixelView {
    /// The order of the four bytes of a pixel.
    package enum Layout: Sendable {
        case rgba, bgra
    }

    /// Columns of the upright picture.
    package let width: Int
    /// Rows of the upright picture.
    package let height: Int

    private let pixels: UnsafePointer<UInt32>  // the upright picture's first pixel
    private let columnStride: Int  // pixels from one to its right neighbor in the upright picture
    private let rowStride: Int  // pixels to the neighbor below
    private let redShift: UInt32
    private let blueShift: UInt32

    /// The pixels at `start`, `width` × `height` as they are stored, turned by `turn`.
    ///
    /// - Parameter rowBytes: Bytes from a stored row to the next, a multiple of 4.
    package init(
        _ start: UnsafeRawPointer, width: Int, height: Int, rowBytes: Int, layout: Layout,
        turn: Turn = .upright
    ) {
        precondition(rowBytes % 4 == 0, "pixels of four bytes lie at multiples of 4")
        func offset(_ column: Int, _ row: Int) -> Int {
            let stored = turn.source(column: column, row: row, width: width, height: height)
            return stored.row * (rowBytes / 4) + stored.column
        }
        let first = offset(0, 0)
        self.width = turn.exchangesSides ? height : width
        self.height = turn.exchangesSides ? width : height
        pixels = start.assumingMemoryBound(to: UInt32.self) + first
        columnStride = offset(1, 0) - first
        rowStride = offset(0, 1) - first
        (redShift, blueShift) = layout == .rgba ? (0, 16) : (16, 0)  // little-endian, as all Apple systems are
    }

    /// A part of the picture, resampled to `geometry`'s size: the square of `side` pixels that it crops.
    ///
    /// Equal to the bit to what Pillow's `resize` and `crop` make of the same pixels. Red, green and blue, row by row.
    func resampled(to geometry: Preprocessing.Geometry, side: Int, filter: ResamplingFilter) -> [UInt8] {
        let across = ResamplingKernel(
            filter, input: width, output: geometry.width, range: geometry.left..<geometry.left + side
        )
        let down = ResamplingKernel(
            filter, input: height, output: geometry.height, range: geometry.top..<geometry.top + side
        )
        let rows = down.reach
        return Self.reduced(narrowed(by: across, rows: rows), by: down, firstRow: rows.lowerBound, width: side)
    }

    // The loops below keep to operations that are fast in builds without optimization, too: `while`, and integers that
    // are never converted.

    /// Each of `rows` with its columns resampled: levels of red, green and blue from 0 to 255.
    private func narrowed(by kernel: ResamplingKernel, rows: Range<Int>) -> [Int32] {
        var levels = [Int32](repeating: 0, count: 3 * kernel.first.count * rows.count)
        levels.withUnsafeMutableBufferPointer { levels in
            kernel.weights.withUnsafeBufferPointer { weights in
                guard var target = levels.baseAddress, var own = weights.baseAddress else { return }
                for row in rows {
                    for first in kernel.first {
                        let taps = min(kernel.count, width - first)
                        weigh(taps, from: row * rowStride + first * columnStride, own, into: target)
                        target += 3
                        own += kernel.count
                    }
                    own -= weights.count
                }
            }
        }
        return levels
    }

    /// The weighted sum of `taps` neighboring pixels, from the one at `place` to the right.
    private func weigh(
        _ taps: Int, from place: Int, _ weights: UnsafePointer<Int32>, into target: UnsafeMutablePointer<Int32>
    ) {
        var (red, green, blue) = (Self.half, Self.half, Self.half)
        var (place, tap) = (place, 0)
        while tap < taps {
            let pixel = pixels[place]
            let weight = weights[tap]
            red &+= weight &* Int32(bitPattern: (pixel &>> redShift) & 0xff)
            green &+= weight &* Int32(bitPattern: (pixel &>> 8) & 0xff)
            blue &+= weight &* Int32(bitPattern: (pixel &>> blueShift) & 0xff)
            place &+= columnStride
            tap &+= 1
        }
        target[0] = Self.level(red)
        target[1] = Self.level(green)
        target[2] = Self.level(blue)
    }

    /// Rows of `width` pixels, resampled from top to bottom; the first of them is row `firstRow` of the picture.
    private static func reduced(
        _ levels: [Int32], by kernel: ResamplingKernel, firstRow: Int, width: Int
    ) -> [UInt8] {
        let length = 3 * width
        var bytes = [UInt8]()
        bytes.reserveCapacity(length * kernel.first.count)
        for (row, first) in kernel.first.enumerated() {
            let start = first - firstRow
            var sums = [Int32](repeating: half, count: length)
            for tap in 0..<min(kernel.count, levels.count / length - start) {
                add(levels, from: (start + tap) * length, kernel.weights[row * kernel.count + tap], to: &sums)
            }
            bytes += sums.map { UInt8(level($0)) }
        }
        return bytes
    }

    /// Adds `weight` times a row of levels to the sums.
    private static func add(_ levels: [Int32], from place: Int, _ weight: Int32, to sums: inout [Int32]) {
        levels.withUnsafeBufferPointer { levels in
            sums.withUnsafeMutableBufferPointer { sums in
                guard let source = levels.baseAddress, let target = sums.baseAddress else { return }
                let row = source + place
                let length = sums.count
                var column = 0
                while column < length {
                    target[column] &+= weight &* row[column]
                    column &+= 1
                }
            }
        }
    }

    private static let half: Int32 = 1 << (ResamplingKernel.precision - 1)  // rounds to the nearest

    private static func level(_ sum: Int32) -> Int32 {
        let value = sum &>> ResamplingKernel.precision
        if value < 0 { return 0 }
        return value > 255 ? 255 : value
    }
}
