#if canImport(CoreML)
import CoreImage
import CoreVideo
import Foundation
import ImageIO
import UniformTypeIdentifiers
import XCTest

@testable import MoRViTKit

/// The exported model itself, on the machine that runs the tests.
final class MoRViTClassifierTests: XCTestCase {
    /// `MORVIT_MODEL`, or the model that lies beside MoRViTKit in its bundle.
    private func model() throws -> URL {
        if let path = ProcessInfo.processInfo.environment["MORVIT_MODEL"] {
            return URL(fileURLWithPath: path)
        }
        let package = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let bundle = package.deletingLastPathComponent()
        let models = ["MoRViT.mlpackage", "MoRViT.aimodel"].map { bundle.appending(path: $0) }
        guard let url = models.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
            throw XCTSkip("no model in \(bundle.path); set MORVIT_MODEL to the bundle's model")
        }
        return url
    }

    private func classifier(_ units: ComputeUnits = .cpuOnly) async throws -> MoRViTClassifier {
        try await MoRViTClassifier.load(contentsOf: model(), computeUnits: units)
    }

    func testGoldenImagesOnTheCPU() async throws {
        try await compareGolden(classifier(.cpuOnly))
    }

    func testGoldenImagesWhereTheRuntimeChooses() async throws {
        try await compareGolden(classifier(.all))
    }

    func testGoldenImagesOnTheGPU() async throws {
        try await compareGolden(classifier(.cpuAndGPU))
    }

    func testGoldenImagesOnTheNeuralEngine() async throws {
        try await compareGolden(classifier(.cpuAndNeuralEngine))
    }

    private func compareGolden(_ classifier: MoRViTClassifier) async throws {
        let golden = try GoldenImages()
        for (number, pixels) in golden.pixels.enumerated() {
            let (numbers, bucket, depth) = try await answer(of: classifier, to: pixels)
            XCTAssertEqual(bucket, golden.buckets[number], "bucket of image \(number)")
            XCTAssertEqual(numbers.count, golden.logits[number].count)
            for (got, expected) in zip(numbers, golden.logits[number]) {
                XCTAssertEqual(got, expected, accuracy: golden.tolerance, "number of image \(number)")
            }
            XCTAssertEqual(depth != nil, classifier.description.answersDepth)
        }
    }

    /// Logits, features or tokens, with the bucket that ran and the depth.
    private func answer(
        of classifier: MoRViTClassifier, to pixels: RGBPixels
    ) async throws -> ([Float], Int, DepthMap?) {
        if classifier.description.output ?? .logits == .logits {
            let prediction = try await classifier.predict(pixels)
            return (prediction.logits, prediction.bucketIndex, prediction.depth)
        }
        let embedding = try await classifier.embed(pixels)
        XCTAssertEqual(embedding.shape, classifier.description.outputShape)
        return (embedding.values, embedding.bucketIndex, embedding.depth)
    }

    func testPreparedPixelsOfAnotherSizeAreRefused() async throws {
        let classifier = try await classifier()
        let side = classifier.description.imageSize + 1
        let pixels = try RGBPixels(
            width: side, height: side, bytes: [UInt8](repeating: 0, count: 3 * side * side)
        )
        do {
            _ = try await answer(of: classifier, to: pixels)
            XCTFail("expected an error")
        } catch let error as MoRViTError {
            XCTAssertEqual(error, .wrongSize(width: side, height: side, expected: side - 1))
        }
    }

    func testASmallPictureIsRefused() async throws {
        let classifier = try await classifier()
        try skipUnlessClasses(classifier)
        let side = classifier.description.imageSize
        do {
            _ = try await classifier.predict(InputImage(gray(width: side - 1, height: side)))
            XCTFail("expected an error")
        } catch let error as MoRViTError {
            XCTAssertEqual(error, .imageTooSmall(width: side - 1, height: side, needed: side))
        }
    }

    func testEveryOrientationOfAGrayPictureIsTheSame() async throws {
        let classifier = try await classifier()
        try skipUnlessClasses(classifier)
        let picture = try gray(width: 2 * classifier.description.imageSize, height: 3 * classifier.description.imageSize)
        let upright = try await classifier.predict(InputImage(picture))
        for raw in UInt32(2)...8 {
            let orientation = try XCTUnwrap(CGImagePropertyOrientation(rawValue: raw))
            let turned = try await classifier.predict(InputImage(picture, orientation: orientation))
            XCTAssertEqual(turned.best?.index, upright.best?.index)
        }
    }

    func testEveryKindOfPictureGivesTheSamePixels() throws {
        let side = 40
        let buffer = try gray(width: side, height: side)
        let image = try XCTUnwrap(DepthMap(side: 1, depths: [1], steps: 2).cgImage(size: side))
        let preprocessing = Preprocessing(
            imageSize: side, resize: nil, interpolation: "bicubic", mean: [0, 0, 0], std: [1, 1, 1]
        )
        let preparation = ImagePreparation(preprocessing: preprocessing, allowsUpscaling: false)
        XCTAssertEqual(Set(try preparation.pixels(of: InputImage(buffer)).bytes), [128])
        let expected = try preparation.pixels(of: InputImage(image))
        let file = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).png")
        defer { try? FileManager.default.removeItem(at: file) }
        try write(image, to: file)
        XCTAssertEqual(try preparation.pixels(of: InputImage(contentsOf: file)), expected)
        let rendered = try preparation.pixels(of: InputImage(CIImage(cgImage: image)))
        for (got, wanted) in zip(rendered.bytes, expected.bytes) {
            XCTAssertEqual(Int(got), Int(wanted), accuracy: 1)  // Core Image computes in a linear color space
        }
    }

    func testAnEXIFOrientationIsReadUnlessOneIsGiven() throws {
        let image = try XCTUnwrap(DepthMap(side: 1, depths: [0], steps: 1).cgImage(size: 4))
        let file = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).jpeg")
        defer { try? FileManager.default.removeItem(at: file) }
        try write(image, to: file, properties: [kCGImagePropertyOrientation: 6])
        XCTAssertEqual(try InputImage(contentsOf: file).orientation, .right)
        XCTAssertEqual(try InputImage(data: Data(contentsOf: file)).orientation, .right)
        XCTAssertEqual(try InputImage(contentsOf: file, orientation: .up).orientation, .up)
    }

    func testWhatIsNoPictureIsRefused() {
        XCTAssertThrowsError(try InputImage(data: Data("no picture".utf8)))
        XCTAssertThrowsError(try InputImage(contentsOf: URL(fileURLWithPath: "/nowhere.png")))
    }

    func testAHeatMapHasTheSizeThatWasAskedFor() throws {
        let map = try DepthMap(side: 2, depths: [0, 1, 2, 3], steps: 3)
        XCTAssertEqual(map.cgImage()?.width, 2)
        XCTAssertEqual(map.cgImage(size: 64, interpolation: .linear)?.height, 64)
        XCTAssertNil(map.cgImage(size: 0))
    }

    private func write(_ image: CGImage, to file: URL, properties: [CFString: Any] = [:]) throws {
        let type = (file.pathExtension == "png" ? UTType.png : UTType.jpeg).identifier as CFString
        let target = try XCTUnwrap(CGImageDestinationCreateWithURL(file as CFURL, type, 1, nil))
        CGImageDestinationAddImage(target, image, properties as CFDictionary)
        XCTAssertTrue(CGImageDestinationFinalize(target))
    }

    func testACancelledTaskStops() async throws {
        let classifier = try await classifier()
        let golden = try GoldenImages()
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await self.answer(of: classifier, to: golden.pixels[0])
        }
        do {
            _ = try await task.value
            XCTFail("expected CancellationError")
        } catch is CancellationError {}
    }

    private func skipUnlessClasses(_ classifier: MoRViTClassifier) throws {
        let output = classifier.description.output ?? .logits
        try XCTSkipUnless(output == .logits, "the model returns \(output.rawValue)")
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

    private func gray(width: Int, height: Int) throws -> CVPixelBuffer {
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
