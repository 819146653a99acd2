#if canImport(CoreML)
import Accelerate
import CoreVideo
import MoRViTCore

extension RGBPixels {
    /// The pixels as a 32BGRA pixel buffer, which is how Core ML takes an image.
    func pixelBuffer() throws -> CVPixelBuffer {
        let attributes = [kCVPixelBufferIOSurfacePropertiesKey as String: [String: Any]()] as CFDictionary
        var made: CVPixelBuffer?
        let code = CVPixelBufferCreate(
            kCFAllocatorDefault, width, height, kCVPixelFormatType_32BGRA, attributes, &made
        )
        guard let made else {
            throw MoRViTError.unusablePicture(step: "making a pixel buffer", code: Int(code))
        }
        try withMemory(of: made, readOnly: false) { memory in
            for row in 0..<height {
                write(row, to: memory.data + row * memory.rowBytes)
            }
        }
        return made
    }

    private func write(_ row: Int, to memory: UnsafeMutableRawPointer) {
        let line = UnsafeMutableRawBufferPointer(start: memory, count: 4 * width)
        for column in 0..<width {
            let first = 3 * (row * width + column)
            line[4 * column] = bytes[first + 2]
            line[4 * column + 1] = bytes[first + 1]
            line[4 * column + 2] = bytes[first]
            line[4 * column + 3] = 255
        }
    }
}

/// Calls `body` with the memory of a pixel buffer while it is locked.
func withMemory<Result>(
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
