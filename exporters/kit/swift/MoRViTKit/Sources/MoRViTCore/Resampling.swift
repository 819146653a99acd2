import Foundation

/// The filters that a checkpoint's preprocessing may name, with Pillow's definitions.
package enum ResamplingFilter: String, CaseIterable, Sendable {
    case nearest, box, bilinear, hamming, bicubic, lanczos

    /// How far the filter reaches, in input pixels when nothing is scaled.
    var support: Double {
        switch self {
        case .nearest, .box: return 0.5
        case .bilinear, .hamming: return 1
        case .bicubic: return 2
        case .lanczos: return 3
        }
    }

    /// The filter's value at a distance from its center.
    func weight(at distance: Double) -> Double {
        let x = abs(distance)
        switch self {
        case .nearest, .box: return distance > -0.5 && distance <= 0.5 ? 1 : 0
        case .bilinear: return max(1 - x, 0)
        case .hamming: return x < 1 ? Self.sinc(x) * (0.54 + 0.46 * cos(.pi * x)) : 0
        case .bicubic:
            if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
            return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0
        case .lanczos: return x < 3 ? Self.sinc(x) * Self.sinc(x / 3) : 0
        }
    }

    private static func sinc(_ x: Double) -> Double {
        x == 0 ? 1 : sin(.pi * x) / (.pi * x)
    }
}

/// For each output pixel of one axis: the first input pixel that it reads, and the weights from there on.
///
/// Weights are fixed-point numbers as in Pillow's `Resample.c`, so that results are equal to the bit.
struct ResamplingKernel {
    /// Bits behind the point: 8-bit pixels, their sums and a sign fit in 32 bits.
    static let precision: Int32 = 22

    /// First input pixel of each output pixel.
    private(set) var first: [Int] = []
    /// `count` weights of each output pixel, zero behind its last one.
    private(set) var weights: [Int32] = []
    /// Weights of an output pixel.
    let count: Int

    /// Weights of the output pixels in `range` where `input` pixels are scaled to `output` pixels.
    init(_ filter: ResamplingFilter, input: Int, output: Int, range: Range<Int>) {
        let scale = Double(input) / Double(output)
        if filter == .nearest || input == output {
            count = 1
            first = Self.nearest(scale: scale, output: output)[range].map { min($0, input - 1) }
            weights = [Int32](repeating: 1 << Self.precision, count: range.count)
            return
        }
        let widening = max(scale, 1)  // when shrinking, the filter covers as many more input pixels
        let support = filter.support * widening
        count = 2 * Int(support.rounded(.up)) + 1
        for place in range {
            let center = (Double(place) + 0.5) * scale
            let start = max(Int(center - support + 0.5), 0)
            let end = min(Int(center + support + 0.5), input)
            let values = (start..<end).map { filter.weight(at: (Double($0) - center + 0.5) / widening) }
            first.append(start)
            weights += Self.fixedPoint(values, count: count)
        }
    }

    /// The input pixels that any of these output pixels reads.
    var reach: Range<Int> {
        let last = first.indices.map { place in
            let own = weights[place * count..<(place + 1) * count]
            return first[place] + (own.lastIndex { $0 != 0 } ?? own.startIndex) - own.startIndex
        }
        return (first.min() ?? 0)..<(last.max() ?? -1) + 1
    }

    private static func nearest(scale: Double, output: Int) -> [Int] {
        var position = 0.5 * scale
        return (0..<output).map { _ in
            defer { position += scale }  // added up as Pillow does, so that rounding is equal
            return Int(position)
        }
    }

    private static func fixedPoint(_ values: [Double], count: Int) -> [Int32] {
        let sum = values.reduce(0, +)
        let one = Double(1 << precision)
        let fixed = values.map { Int32((sum == 0 ? $0 : $0 / sum) * one + ($0 < 0 ? -0.5 : 0.5)) }
        return fixed + [Int32](repeating: 0, count: count - values.count)
    }
}
