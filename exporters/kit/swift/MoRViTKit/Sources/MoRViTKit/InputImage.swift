#if canImport(CoreML)
import CoreGraphics
import CoreImage
import CoreVideo
import Foundation
import ImageIO
import MoRViTCore

/// A picture to classify, of any size, with its orientation.
///
/// Whatever it is made from, ``MoRViTClassifier`` prepares it in the same way: turned upright, converted to sRGB,
/// transparency dropped, resized with the model's filter, and cropped.
///
/// It may go to another task, hence `@unchecked Sendable`: images never change, and a pixel buffer must not be
/// written to until its prediction has returned.
public struct InputImage: @unchecked Sendable {
    enum Source {
        /// Of a camera or a video.
        case pixelBuffer(CVPixelBuffer)
        /// Of a file or a drawing.
        case cgImage(CGImage)
        /// Of Core Image's filters.
        case ciImage(CIImage)
    }

    let source: Source
    /// How the picture is turned upright.
    public let orientation: CGImagePropertyOrientation

    init(_ source: Source, orientation: CGImagePropertyOrientation) {
        self.source = source
        self.orientation = orientation
    }

    /// A pixel buffer of a camera or a video, in any format that Video Toolbox converts.
    ///
    /// The bytes of a 32BGRA buffer are used as they are, without color conversion.
    ///
    /// - Parameter orientation: How to turn it upright; `.up` leaves it as it is.
    public init(_ pixelBuffer: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up) {
        self.init(.pixelBuffer(pixelBuffer), orientation: orientation)
    }

    /// A `CGImage` in any color space.
    ///
    /// - Parameter orientation: How to turn it upright; `.up` leaves it as it is. A `CGImage` does not know its own.
    public init(_ cgImage: CGImage, orientation: CGImagePropertyOrientation = .up) {
        self.init(.cgImage(cgImage), orientation: orientation)
    }

    /// A `CIImage` of finite extent. It is rendered when it is classified.
    ///
    /// - Parameter orientation: How to turn it upright; `.up` leaves it as it is, which is right for filters' outputs
    ///   and for images that were opened with `.applyOrientationProperty`.
    public init(_ ciImage: CIImage, orientation: CGImagePropertyOrientation = .up) {
        self.init(.ciImage(ciImage), orientation: orientation)
    }

    /// A picture file, such as JPEG, PNG or HEIC.
    ///
    /// - Parameter orientation: How to turn it upright; nil: what the file's EXIF says. `.up` ignores EXIF, as
    ///   `morvit-deploy predict` does.
    /// - Throws: ``MoRViTError/unusablePicture(step:code:)`` when the file cannot be read.
    public init(contentsOf url: URL, orientation: CGImagePropertyOrientation? = nil) throws {
        guard let file = CGImageSourceCreateWithURL(url as CFURL, nil) else {
            throw MoRViTError.unusablePicture(step: "reading \(url.path)", code: 0)
        }
        try self.init(file, orientation: orientation)
    }

    /// The bytes of a picture file, such as JPEG, PNG or HEIC.
    ///
    /// - Parameter orientation: How to turn it upright; nil: what the file's EXIF says. `.up` ignores EXIF, as
    ///   `morvit-deploy predict` does.
    /// - Throws: ``MoRViTError/unusablePicture(step:code:)`` when they are not a picture.
    public init(data: Data, orientation: CGImagePropertyOrientation? = nil) throws {
        guard let file = CGImageSourceCreateWithData(data as CFData, nil) else {
            throw MoRViTError.unusablePicture(step: "reading the picture's bytes", code: 0)
        }
        try self.init(file, orientation: orientation)
    }

    private init(_ file: CGImageSource, orientation: CGImagePropertyOrientation?) throws {
        guard let image = CGImageSourceCreateImageAtIndex(file, 0, nil) else {
            let status = CGImageSourceGetStatus(file)
            throw MoRViTError.unusablePicture(step: "decoding the picture", code: Int(status.rawValue))
        }
        let properties = CGImageSourceCopyPropertiesAtIndex(file, 0, nil) as? [CFString: Any]
        let exif = (properties?[kCGImagePropertyOrientation] as? UInt32)
            .flatMap { CGImagePropertyOrientation(rawValue: $0) }
        self.init(image, orientation: orientation ?? exif ?? .up)
    }

    /// Columns of the upright picture.
    public var width: Int { isTurnedSideways ? stored.height : stored.width }

    /// Rows of the upright picture.
    public var height: Int { isTurnedSideways ? stored.width : stored.height }

    private var isTurnedSideways: Bool { (5...8).contains(orientation.rawValue) }

    private var stored: (width: Int, height: Int) {
        switch source {
        case .pixelBuffer(let buffer):
            return (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
        case .cgImage(let image):
            return (image.width, image.height)
        case .ciImage(let image):
            guard !image.extent.isInfinite else { return (0, 0) }
            let extent = image.extent.integral
            return (Int(extent.width), Int(extent.height))
        }
    }
}
#endif
