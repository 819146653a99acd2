import Foundation

/// Pixels that are already resized and cropped: red, green and blue of each, row by row.
public struct RGBPixels: Sendable, Hashable {
    /// Columns.
    public let width: Int
    /// Rows.
    public let height: Int
    /// width × height × 3 bytes.
    public let bytes: [UInt8]

    /// Wraps bytes.
    ///
    /// - Throws: ``MoRViTError/wrongByteCount(got:expected:)``.
    public init(width: Int, height: Int, bytes: [UInt8]) throws {
        guard bytes.count == width * height * 3 else {
            throw MoRViTError.wrongByteCount(got: bytes.count, expected: width * height * 3)
        }
        self.width = width
        self.height = height
        self.bytes = bytes
    }

    /// Are these the pixels of a model's image?
    ///
    /// - Throws: ``MoRViTError/wrongSize(width:height:expected:)``.
    public func check(imageSize: Int) throws {
        guard width == imageSize, height == imageSize else {
            throw MoRViTError.wrongSize(width: width, height: height, expected: imageSize)
        }
    }
}
