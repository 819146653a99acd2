#if canImport(CoreML)
import Accelerate
import CoreGraphics
import CoreImage
import CoreVideo
import MoRViTCore
import VideoToolbox

/// From a picture to the model's pixels. Every kind of picture ends in `Preprocessing.prepared`.
struct ImagePreparation {
    let preprocessing: Preprocessing
    let allowsUpscaling: Bool

    /// The picture, turned upright, resized and cropped.
    func pixels(of image: InputImage) throws -> RGBPixels {
        let turn = try Turn(orientation: Int(image.orientation.rawValue))
        switch image.source {
        case .pixelBuffer(let buffer)
        where CVPixelBufferGetPixelFormatType(buffer) == kCVPixelFormatType_32BGRA:
            return try withMemory(of: buffer, readOnly: true) { try prepared($0, .bgra, turn) }
        case .pixelBuffer(let buffer):
            return try pixels(of: Self.cgImage(of: buffer), turn)
        case .cgImage(let cgImage):
            return try pixels(of: cgImage, turn)
        case .ciImage(let ciImage):
            return try pixels(of: Self.cgImage(of: ciImage), turn)
        }
    }

    private func pixels(of image: CGImage, _ turn: Turn) throws -> RGBPixels {
        let memory = try Self.sRGB(image)
        defer { memory.free() }
        return try prepared(memory, .rgba, turn)
    }

    private func prepared(_ memory: vImage_Buffer, _ layout: PixelView.Layout, _ turn: Turn) throws -> RGBPixels {
        let view = PixelView(
            memory.data, width: Int(memory.width), height: Int(memory.height), rowBytes: memory.rowBytes,
            layout: layout, turn: turn
        )
        return try preprocessing.prepared(view, allowsUpscaling: allowsUpscaling)
    }

    /// An image's pixels as 8-bit sRGB. Alpha is kept apart, so that dropping it leaves the colors as they are.
    private static func sRGB(_ image: CGImage) throws -> vImage_Buffer {
        guard
            let space = CGColorSpace(name: CGColorSpace.sRGB),
            let format = vImage_CGImageFormat(
                bitsPerComponent: 8, bitsPerPixel: 32, colorSpace: space,
                bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.last.rawValue)
            )
        else {
            throw MoRViTError.unusablePicture(step: "describing 8-bit sRGB", code: 0)
        }
        do {
            return try vImage_Buffer(cgImage: image, format: format)
        } catch {
            throw MoRViTError.unusablePicture(step: "converting the image to sRGB", code: (error as NSError).code)
        }
    }

    private static func cgImage(of buffer: CVPixelBuffer) throws -> CGImage {
        var image: CGImage?
        let code = VTCreateCGImageFromCVPixelBuffer(buffer, options: nil, imageOut: &image)
        guard let image else {
            throw MoRViTError.unusablePicture(step: "converting the pixel buffer", code: Int(code))
        }
        return image
    }

    private static let context = CIContext()  // may be used by several threads

    private static func cgImage(of image: CIImage) throws -> CGImage {
        guard !image.extent.isInfinite, !image.extent.isEmpty else {
            throw MoRViTError.unusablePicture(step: "rendering a CIImage of extent \(image.extent)", code: 0)
        }
        let space = CGColorSpace(name: CGColorSpace.sRGB)
        let extent = image.extent.integral
        guard let rendered = context.createCGImage(image, from: extent, format: .RGBA8, colorSpace: space) else {
            throw MoRViTError.unusablePicture(step: "rendering a CIImage", code: 0)
        }
        return rendered
    }
}
#endif
