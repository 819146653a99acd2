#if canImport(CoreML)
import Accelerate
import CoreGraphics
import CoreVideo
import MoRViTCore

/// 32-bit BGRA pixels in memory of their own, freed with the object.
final class PixelMemory {
    private(set) var buffer: vImage_Buffer

    var width: Int { Int(buffer.width) }
    var height: Int { Int(buffer.height) }

    /// Room for `width` × `height` pixels.
    init(width: Int, height: Int) throws {
        buffer = vImage_Buffer()
        try Self.check(
            vImageBuffer_Init(
                &buffer, vImagePixelCount(height), vImagePixelCount(width), 32, vImage_Flags(kvImageNoFlags)
            ),
            step: "making room for \(width)×\(height) pixels"
        )
    }

    /// The pixels of an image, converted to sRGB.
    init(_ image: CGImage) throws {
        let layout = CGImageAlphaInfo.noneSkipFirst.rawValue | CGBitmapInfo.byteOrder32Little.rawValue
        guard
            let colours = CGColorSpace(name: CGColorSpace.sRGB),
            let format = vImage_CGImageFormat(
                bitsPerComponent: 8, bitsPerPixel: 32, colorSpace: colours,
                bitmapInfo: CGBitmapInfo(rawValue: layout)
            )
        else {
            throw MoRViTError.unusablePicture(step: "describing 8-bit sRGB", code: 0)
        }
        do {
            buffer = try vImage_Buffer(cgImage: image, format: format)
        } catch {
            throw MoRViTError.unusablePicture(step: "reading the image", code: (error as NSError).code)
        }
    }

    deinit {
        buffer.free()
    }

    /// New pixels that `filter` makes of these.
    func filtered(
        width: Int, height: Int, step: String,
        _ filter: (UnsafePointer<vImage_Buffer>, UnsafePointer<vImage_Buffer>) -> vImage_Error
    ) throws -> PixelMemory {
        try withExtendedLifetime(self) {
            try Self.filtered(buffer, width: width, height: height, step: step, filter)
        }
    }

    /// New pixels that `filter` makes of those of `source`.
    static func filtered(
        _ source: vImage_Buffer, width: Int, height: Int, step: String,
        _ filter: (UnsafePointer<vImage_Buffer>, UnsafePointer<vImage_Buffer>) -> vImage_Error
    ) throws -> PixelMemory {
        let target = try PixelMemory(width: width, height: height)
        let code = withUnsafePointer(to: source) { from in
            withUnsafePointer(to: target.buffer) { filter(from, $0) }
        }
        try check(code, step: step)
        return target
    }

    private static func check(_ code: vImage_Error, step: String) throws {
        guard code == kvImageNoError else {
            throw MoRViTError.unusablePicture(step: step, code: code)
        }
    }
}

/// Calls `body` with the memory of a pixel buffer while it is locked.
func withPixels<Result>(
    of buffer: CVPixelBuffer, readOnly: Bool, _ body: (vImage_Buffer) throws -> Result
) throws -> Result {
    let flags: CVPixelBufferLockFlags = readOnly ? .readOnly : []
    let code = CVPixelBufferLockBaseAddress(buffer, flags)
    guard code == kCVReturnSuccess else {
        throw MoRViTError.unusablePicture(step: "locking the pixel buffer", code: Int(code))
    }
    defer { CVPixelBufferUnlockBaseAddress(buffer, flags) }
    guard let data = CVPixelBufferGetBaseAddress(buffer) else {
        throw MoRViTError.unusablePicture(step: "reading the pixel buffer", code: 0)
    }
    return try body(
        vImage_Buffer(
            data: data, height: vImagePixelCount(CVPixelBufferGetHeight(buffer)),
            width: vImagePixelCount(CVPixelBufferGetWidth(buffer)),
            rowBytes: CVPixelBufferGetBytesPerRow(buffer)
        )
    )
}
#endif
