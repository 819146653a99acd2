#if canImport(CoreGraphics)
import CoreGraphics
import Foundation
import MoRViTCore

extension DepthMap {
    /// The heat map as an opaque sRGB image: cool is shallow, warm is deep.
    ///
    /// ``DepthMap/color(depth:lowest:highest:)`` documents the colors. Drawn larger than it is, the image keeps sharp
    /// patches with ``Interpolation/nearest`` and is smoothed with ``Interpolation/linear``.
    ///
    /// - Parameters:
    ///   - size: Pixels in a row, and rows; nil: one pixel for each patch.
    ///   - interpolation: How the map is enlarged.
    /// - Returns: nil where `size` is less than 1, or no memory is left.
    public func cgImage(size: Int? = nil, interpolation: Interpolation = .nearest) -> CGImage? {
        let size = size ?? side
        guard
            size > 0, let space = CGColorSpace(name: CGColorSpace.sRGB),
            let provider = CGDataProvider(data: Data(rgba(size: size, interpolation: interpolation)) as CFData)
        else { return nil }
        return CGImage(
            width: size, height: size, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 4 * size,
            space: space, bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue),
            provider: provider, decode: nil, shouldInterpolate: interpolation == .linear, intent: .defaultIntent
        )
    }
}
#endif
