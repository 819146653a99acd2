#if canImport(CoreML) && canImport(UIKit)
import ImageIO
import MoRViTCore
import UIKit

extension InputImage {
    /// A `UIImage`, turned upright by its own orientation.
    ///
    /// - Throws: ``MoRViTError/unusablePicture(step:code:)`` for an image without pixels, such as `UIImage()`.
    public init(_ image: UIImage) throws {
        let orientation = CGImagePropertyOrientation(image.imageOrientation)
        if let cgImage = image.cgImage {
            self.init(cgImage, orientation: orientation)
        } else if let ciImage = image.ciImage {
            self.init(ciImage, orientation: orientation)
        } else {
            throw MoRViTError.unusablePicture(step: "reading the pixels of a UIImage", code: 0)
        }
    }
}

extension CGImagePropertyOrientation {
    /// The same orientation; the two types number them differently.
    init(_ orientation: UIImage.Orientation) {
        switch orientation {
        case .up: self = .up
        case .upMirrored: self = .upMirrored
        case .down: self = .down
        case .downMirrored: self = .downMirrored
        case .left: self = .left
        case .leftMirrored: self = .leftMirrored
        case .right: self = .right
        case .rightMirrored: self = .rightMirrored
        @unknown default: self = .up
        }
    }
}
#endif
