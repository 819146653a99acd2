#if canImport(CoreML)
import Accelerate
import CoreGraphics
import CoreVideo
import MoRViTCore
import VideoToolbox

/// From a picture to the model's pixels: resize with vImage, turn upright, crop.
///
/// The picture is turned after it was made small: filters do not care for quarter turns, and there is less to move.
struct ImagePreparation {
    let preprocessing: Preprocessing
    let allowsUpscaling: Bool

    /// The picture as a BGRA pixel buffer of the model's size.
    func pixelBuffer(of image: InputImage) throws -> CVPixelBuffer {
        let geometry = try preprocessing.geometry(
            width: image.width, height: image.height, allowsUpscaling: allowsUpscaling
        )
        let small = try resized(image, to: geometry)
        return try cropped(turned(small, by: image.turn), left: geometry.left, top: geometry.top)
    }

    /// Prepared pixels as a BGRA pixel buffer.
    func pixelBuffer(of pixels: RGBPixels) throws -> CVPixelBuffer {
        try pixels.check(imageSize: preprocessing.imageSize)
        let buffer = try emptyPixelBuffer()
        try withPixels(of: buffer, readOnly: false) { bgra in
            for row in 0..<pixels.height {
                let target = UnsafeMutableRawBufferPointer(
                    start: bgra.data + row * bgra.rowBytes, count: 4 * pixels.width
                )
                for column in 0..<pixels.width {
                    let first = 3 * (row * pixels.width + column)
                    target[4 * column] = pixels.bytes[first + 2]
                    target[4 * column + 1] = pixels.bytes[first + 1]
                    target[4 * column + 2] = pixels.bytes[first]
                    target[4 * column + 3] = 255
                }
            }
        }
        return buffer
    }

    /// The bytes of a BGRA pixel buffer of the model's size.
    func pixels(of buffer: CVPixelBuffer) throws -> RGBPixels {
        let side = preprocessing.imageSize
        var bytes = [UInt8]()
        bytes.reserveCapacity(3 * side * side)
        try withPixels(of: buffer, readOnly: true) { bgra in
            for row in 0..<side {
                let source = UnsafeRawBufferPointer(start: bgra.data + row * bgra.rowBytes, count: 4 * side)
                for column in 0..<side {
                    bytes += [source[4 * column + 2], source[4 * column + 1], source[4 * column]]
                }
            }
        }
        return try RGBPixels(width: side, height: side, bytes: bytes)
    }

    private func resized(_ image: InputImage, to upright: Preprocessing.Geometry) throws -> PixelMemory {
        let width = image.turn.exchangesSides ? upright.height : upright.width
        let height = image.turn.exchangesSides ? upright.width : upright.height
        switch image.source {
        case .pixelBuffer(let buffer)
        where CVPixelBufferGetPixelFormatType(buffer) == kCVPixelFormatType_32BGRA:
            return try withPixels(of: buffer, readOnly: true) {
                try scaled($0, width: width, height: height)
            }
        case .pixelBuffer(let buffer):
            return try scaled(cgImage(of: buffer), width: width, height: height)
        case .cgImage(let cgImage):
            return try scaled(cgImage, width: width, height: height)
        }
    }

    private func scaled(_ image: CGImage, width: Int, height: Int) throws -> PixelMemory {
        let pixels = try PixelMemory(image)
        return try withExtendedLifetime(pixels) {
            try scaled(pixels.buffer, width: width, height: height)
        }
    }

    private func scaled(_ source: vImage_Buffer, width: Int, height: Int) throws -> PixelMemory {
        let isAsWanted = Int(source.width) == width && Int(source.height) == height
        let flags = vImage_Flags(kvImageNoFlags)  // Lanczos of three lobes; the high-quality flag takes five
        return try PixelMemory.filtered(source, width: width, height: height, step: "resizing") {
            isAsWanted ? vImageCopyBuffer($0, $1, 4, flags) : vImageScale_ARGB8888($0, $1, nil, flags)
        }
    }

    private func turned(_ pixels: PixelMemory, by turn: Turn) throws -> PixelMemory {
        let flags = vImage_Flags(kvImageNoFlags)
        var upright = pixels
        if turn.isMirrored {
            upright = try upright.filtered(width: upright.width, height: upright.height, step: "mirroring") {
                vImageHorizontalReflect_ARGB8888($0, $1, flags)
            }
        }
        guard turn.quarterTurns > 0 else { return upright }
        let width = turn.exchangesSides ? upright.height : upright.width
        let height = turn.exchangesSides ? upright.width : upright.height
        let counterclockwise = UInt8(4 - turn.quarterTurns)  // vImage counts quarter turns that way
        let background: [UInt8] = [0, 0, 0, 255]
        return try upright.filtered(width: width, height: height, step: "turning") {
            vImageRotate90_ARGB8888($0, $1, counterclockwise, background, flags)
        }
    }

    private func cropped(_ pixels: PixelMemory, left: Int, top: Int) throws -> CVPixelBuffer {
        let side = preprocessing.imageSize
        let buffer = try emptyPixelBuffer()
        try withExtendedLifetime(pixels) {
            let source = pixels.buffer
            try withPixels(of: buffer, readOnly: false) { target in
                for row in 0..<side {
                    let from = source.data + (top + row) * source.rowBytes + 4 * left
                    (target.data + row * target.rowBytes).copyMemory(from: from, byteCount: 4 * side)
                }
            }
        }
        return buffer
    }

    private func cgImage(of buffer: CVPixelBuffer) throws -> CGImage {
        var image: CGImage?
        let code = VTCreateCGImageFromCVPixelBuffer(buffer, options: nil, imageOut: &image)
        guard let image else {
            throw MoRViTError.unusablePicture(step: "converting the pixel buffer", code: Int(code))
        }
        return image
    }

    private func emptyPixelBuffer() throws -> CVPixelBuffer {
        let side = preprocessing.imageSize
        let attributes = [kCVPixelBufferIOSurfacePropertiesKey as String: [String: Any]()] as CFDictionary
        var buffer: CVPixelBuffer?
        let code = CVPixelBufferCreate(
            kCFAllocatorDefault, side, side, kCVPixelFormatType_32BGRA, attributes, &buffer
        )
        guard let buffer else {
            throw MoRViTError.unusablePicture(step: "making a pixel buffer", code: Int(code))
        }
        return buffer
    }
}
#endif
