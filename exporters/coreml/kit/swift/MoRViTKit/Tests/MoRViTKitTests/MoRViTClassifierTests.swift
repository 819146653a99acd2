#if canImport(CoreML)
import CoreVideo
import Foundation
import ImageIO
import MoRViTKit
import XCTest

/// The exported model itself, on the machine that runs the tests.
final class MoRViTClassifierTests: XCTestCase {
    /// `MORVIT_MODEL`, or the package that lies beside MoRViTKit in its bundle.
    private func model() throws -> URL {
        if let path = ProcessInfo.processInfo.environment["MORVIT_MODEL"] {
            return URL(fileURLWithPath: path)
        }
        let package = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let url = package.deletingLastPathComponent().appending(path: "MoRViT.mlpackage")
        guard FileManager.default.fileExists(atPath: url.path) else {
            throw XCTSkip("no \(url.path); set MORVIT_MODEL to the bundle's MoRViT.mlpackage")
        }
        return url
    }

    private func classifier(_ units: ComputeUnits = .cpuOnly) async throws -> MoRViTClassifier {
        try await MoRViTClassifier.load(contentsOf: model(), computeUnits: units)
    }

    func testGoldenImagesOnTheCPU() async throws {
        try await compareGolden(classifier(.cpuOnly))
    }

    func testGoldenImagesWhereCoreMLChooses() async throws {
        try await compareGolden(classifier(.all))
    }

    private func compareGolden(_ classifier: MoRViTClassifier) async throws {
        let golden = try GoldenImages()
        for (number, pixels) in golden.pixels.enumerated() {
            let prediction = try await classifier.predict(pixels)
            XCTAssertEqual(prediction.bucketNumber, golden.buckets[number], "bucket of image \(number)")
            XCTAssertEqual(prediction.logits.count, golden.logits[number].count)
            for (got, expected) in zip(prediction.logits, golden.logits[number]) {
                XCTAssertEqual(got, expected, accuracy: golden.tolerance, "logit of image \(number)")
            }
            XCTAssertEqual(prediction.depth != nil, classifier.description.answersDepth)
        }
    }

    func testPreparedPixelsOfAnotherSizeAreRefused() async throws {
        let classifier = try await classifier()
        let side = classifier.description.imageSize + 1
        let pixels = try RGBPixels(
            width: side, height: side, bytes: [UInt8](repeating: 0, count: 3 * side * side)
        )
        do {
            _ = try await classifier.predict(pixels)
            XCTFail("expected an error")
        } catch let error as MoRViTError {
            XCTAssertEqual(error, .wrongSize(width: side, height: side, expected: side - 1))
        }
    }

    func testASmallPictureIsRefused() async throws {
        let classifier = try await classifier()
        let side = classifier.description.imageSize
        do {
            _ = try await classifier.predict(InputImage(grey(width: side - 1, height: side)))
            XCTFail("expected an error")
        } catch let error as MoRViTError {
            XCTAssertEqual(error, .imageTooSmall(width: side - 1, height: side, needed: side))
        }
    }

    func testEveryOrientationOfAGreyPictureIsTheSame() async throws {
        let classifier = try await classifier()
        let picture = try grey(width: 2 * classifier.description.imageSize, height: 3 * classifier.description.imageSize)
        let upright = try await classifier.predict(InputImage(picture))
        for raw in UInt32(2)...8 {
            let orientation = try XCTUnwrap(CGImagePropertyOrientation(rawValue: raw))
            let turned = try await classifier.predict(InputImage(picture, orientation: orientation))
            XCTAssertEqual(turned.best?.index, upright.best?.index)
        }
    }

    func testACancelledTaskStops() async throws {
        let classifier = try await classifier()
        let golden = try GoldenImages()
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await classifier.predict(golden.pixels[0])
        }
        do {
            _ = try await task.value
            XCTFail("expected CancellationError")
        } catch is CancellationError {}
    }

    func testAMissingModelIsNamed() async throws {
        let nowhere = URL(fileURLWithPath: "/nowhere/MoRViT.mlpackage")
        do {
            _ = try await MoRViTClassifier.load(contentsOf: nowhere)
            XCTFail("expected an error")
        } catch let error as MoRViTError {
            XCTAssertEqual(error, .modelNotFound(place: nowhere.path))
        }
    }

    private func grey(width: Int, height: Int) throws -> CVPixelBuffer {
        var buffer: CVPixelBuffer?
        let code = CVPixelBufferCreate(
            kCFAllocatorDefault, width, height, kCVPixelFormatType_32BGRA, nil, &buffer
        )
        XCTAssertEqual(code, kCVReturnSuccess)
        let made = try XCTUnwrap(buffer)
        XCTAssertEqual(CVPixelBufferLockBaseAddress(made, []), kCVReturnSuccess)
        defer { CVPixelBufferUnlockBaseAddress(made, []) }
        let base = try XCTUnwrap(CVPixelBufferGetBaseAddress(made))
        base.initializeMemory(as: UInt8.self, repeating: 128, count: CVPixelBufferGetBytesPerRow(made) * height)
        return made
    }
}
#endif
