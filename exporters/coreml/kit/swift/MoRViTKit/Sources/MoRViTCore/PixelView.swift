/// 8-bit pixels in memory, seen upright: pixels are read where they lie, and nothing is copied to turn a picture.
///
/// The memory must outlive the view.
package struct PixelView {
    /// The order of the four bytes of a pixel.
    package enum Layout: Sendable {
        case rgba, bgra
    }

    /// Columns of the upright picture.
    package let width: Int
    /// Rows of the upright picture.
    package let height: Int

    let origin: UnsafeRawPointer  // the upright picture's first pixel
    let columnStride: Int  // bytes from a pixel to its right neighbor in the upright picture
    let rowStride: Int  // bytes to the neighbor below
    let layout: Layout

    /// The pixels at `start`, `width` × `height` as they are stored, turned by `turn`.
    package init(
        _ start: UnsafeRawPointer, width: Int, height: Int, rowBytes: Int, layout: Layout,
        turn: Turn = .upright
    ) {
        func offset(_ column: Int, _ row: Int) -> Int {
            let stored = turn.source(column: column, row: row, width: width, height: height)
            return stored.row * rowBytes + 4 * stored.column
        }
        let first = offset(0, 0)
        self.width = turn.exchangesSides ? height : width
        self.height = turn.exchangesSides ? width : height
        self.layout = layout
        origin = start + first
        columnStride = offset(1, 0) - first
        rowStride = offset(0, 1) - first
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

    /// Each of `rows` with its columns resampled.
    private func narrowed(by kernel: ResamplingKernel, rows: Range<Int>) -> [UInt8] {
        let columns = kernel.first.count
        return Self.bytes(3 * columns * rows.count) { target in
            kernel.weights.withUnsafeBufferPointer { weights in
                var place = 0
                for row in rows {
                    for column in 0..<columns {
                        let first = kernel.first[column]
                        let start = column * kernel.count
                        let own = weights[start..<start + min(kernel.count, width - first)]
                        let sum = weighed(origin + row * rowStride + first * columnStride, own)
                        target[place] = Self.byte(sum.red)
                        target[place + 1] = Self.byte(sum.green)
                        target[place + 2] = Self.byte(sum.blue)
                        place += 3
                    }
                }
            }
        }
    }

    /// Weighted sums of neighboring pixels, from `start` to the right.
    private func weighed(
        _ start: UnsafeRawPointer, _ weights: Slice<UnsafeBufferPointer<Int32>>
    ) -> (red: Int32, green: Int32, blue: Int32) {
        let (red, blue) = layout == .rgba ? (0, 2) : (2, 0)
        var pixel = start
        var sum = (red: Self.half, green: Self.half, blue: Self.half)
        var tap = weights.startIndex
        while tap < weights.endIndex {  // not `for`, which is slow in builds without optimization
            let weight = weights.base[tap]
            sum.red &+= weight &* Int32(pixel.load(fromByteOffset: red, as: UInt8.self))
            sum.green &+= weight &* Int32(pixel.load(fromByteOffset: 1, as: UInt8.self))
            sum.blue &+= weight &* Int32(pixel.load(fromByteOffset: blue, as: UInt8.self))
            pixel += columnStride
            tap &+= 1
        }
        return sum
    }

    /// Rows of `width` RGB pixels, resampled from top to bottom; the first of them is row `firstRow` of the picture.
    private static func reduced(
        _ pixels: [UInt8], by kernel: ResamplingKernel, firstRow: Int, width: Int
    ) -> [UInt8] {
        let rowBytes = 3 * width
        let rows = pixels.count / rowBytes
        return bytes(rowBytes * kernel.first.count) { target in
            pixels.withUnsafeBufferPointer { source in
                for row in kernel.first.indices {
                    let start = kernel.first[row] - firstRow
                    let taps = min(kernel.count, rows - start)
                    let own = Array(kernel.weights[row * kernel.count..<row * kernel.count + taps])
                    var column = 0
                    while column < rowBytes {
                        var sum = half
                        var from = start * rowBytes + column
                        var tap = 0
                        while tap < taps {
                            sum &+= own[tap] &* Int32(source[from])
                            from &+= rowBytes
                            tap &+= 1
                        }
                        target[row * rowBytes + column] = byte(sum)
                        column &+= 1
                    }
                }
            }
        }
    }

    private static let half: Int32 = 1 << (ResamplingKernel.precision - 1)  // rounds to the nearest

    private static func byte(_ sum: Int32) -> UInt8 {
        UInt8(truncatingIfNeeded: min(max(sum >> ResamplingKernel.precision, 0), 255))
    }

    private static func bytes(_ count: Int, _ fill: (UnsafeMutableBufferPointer<UInt8>) -> Void) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { memory, initialized in
            fill(memory)
            initialized = count
        }
    }
}
