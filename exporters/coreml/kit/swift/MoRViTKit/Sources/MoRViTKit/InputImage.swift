#if canImport(CoreML)
import CoreGraphics
import CoreVideo
import ImageIO
import MoRViTCore

/// A picture to classify: a camera's pixel buffer or a `CGImage`, of any size, with its orientation.
///
/// It may go to another task, hence `@unchecked Sendable`: a `CGImage` never changes, and a pixel buffer must not be
/// written to until its prediction has returned.
public struct InputImage: @unchecked Sendable {
    enum Source {
        /// Of a camera or a video.
        case pixelBuffer(CVPixelBuffer)
        /// Of a file or a drawing.
        case cgImage(CGImage)
    }

    let source: Source
    let turn: Turn

    /// A pixel buffer, of any format that Video Toolbox converts; 32BGRA is taken as it is.
    ///
    /// - Parameter orientation: How to turn it upright. `.up` takes pixels as they lie, as `morvit-deploy predict` does.
    /// - Throws: ``MoRViTError/unknownOrientation(_:)``.
    public init(_ pixelBuffer: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up) throws {
        source = .pixelBuffer(pixelBuffer)
        turn = try Turn(orientation: Int(orientation.rawValue))
    }

    /// A `CGImage`. Colours are converted to sRGB, and transparency is dropped.
    ///
    /// - Parameter orientation: How to turn it upright. `.up` takes pixels as they lie, as `morvit-deploy predict` does.
    /// - Throws: ``MoRViTError/unknownOrientation(_:)``.
    public init(_ cgImage: CGImage, orientation: CGImagePropertyOrientation = .up) throws {
        source = .cgImage(cgImage)
        turn = try Turn(orientation: Int(orientation.rawValue))
    }

    /// Columns of the upright picture.
    public var width: Int { turn.exchangesSides ? stored.height : stored.width }

    /// Rows of the upright picture.
    public var height: Int { turn.exchangesSides ? stored.width : stored.height }

    private var stored: (width: Int, height: Int) {
        switch source {
        case .pixelBuffer(let buffer): return (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
        case .cgImage(let image): return (image.width, image.height)
        }
    }
}
#endif
