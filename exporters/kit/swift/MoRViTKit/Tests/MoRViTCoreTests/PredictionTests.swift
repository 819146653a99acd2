import XCTest

@testable import MoRViTCore

final class PredictionTests: XCTestCase {
    /// Both sides compute in double precision: only the order of sums differs.
    private let equal = 1e-12

    func testProbabilitiesAndTheirOrder() throws {
        let model = try Vectors.model()
        for expected in try Vectors.load().guesses {
            let prediction = Prediction(
                logits: expected.logits, labels: model.labels, bucket: model.dispatch.buckets[0],
                headActivation: expected.activation
            )
            let guesses = prediction.guesses()
            XCTAssertEqual(guesses.map(\.index), expected.indices)
            XCTAssertEqual(guesses.map(\.label), expected.indices.map(model.label))
            for (guess, probability) in zip(guesses, expected.probabilities) {
                XCTAssertEqual(guess.probability, probability, accuracy: equal)
            }
            XCTAssertEqual(prediction.present.map(\.index), expected.present)
            if expected.activation == model.headActivation {
                XCTAssertEqual(model.guesses(logits: expected.logits), guesses)
            }
        }
    }

    func testNoMoreGuessesThanClasses() throws {
        let model = try Vectors.model()
        let logits = [Float](repeating: 0, count: model.classes)
        XCTAssertEqual(model.guesses(logits: logits, count: model.classes + 1).count, model.classes)
        XCTAssertEqual(model.guesses(logits: logits, count: -1), [])
        XCTAssertEqual(softmax([]), [])
        XCTAssertEqual(sigmoid([]), [])
    }

    func testColorsAreThoseOfTheDepthPictures() throws {
        for expected in try Vectors.load().colors {
            let got = DepthMap.color(
                depth: Double(expected.depth), lowest: expected.lowest, highest: expected.highest
            )
            for (channel, value) in zip(got, expected.rgb) {
                XCTAssertEqual(channel, value, accuracy: 1e-9, "\(expected.depth)")
            }
        }
    }

    func testADepthMapHasAPixelForEachPatch() throws {
        let map = try DepthMap(side: 2, depths: [0, 1, 2, 3], steps: 3)
        XCTAssertEqual(map.rgba().count, 16)
        XCTAssertEqual(Array(map.rgba()[0..<4]), [0x35, 0x52, 0xb6, 255])
        XCTAssertEqual(Array(map.rgba()[12..<16]), [0xcf, 0x1d, 0x2d, 255])
        XCTAssertEqual(map.mean, 1.5)
        XCTAssertEqual(map.lowest, 0)
        XCTAssertThrowsError(try DepthMap(side: 2, depths: [0, 1, 2, 4], steps: 3))
        XCTAssertThrowsError(try DepthMap(side: 2, depths: [0, 1, 2], steps: 3))
        XCTAssertThrowsError(try DepthMap(side: 0, depths: [], steps: 3))
    }

    func testAPredictionIsMadeForAPreview() {
        let bucket = DispatchTable.Bucket(name: "full", capacity: [], macs: 0)
        let prediction = Prediction(logits: [0, 2, 1], labels: ["cat", "dog"], bucket: bucket)
        XCTAssertEqual(prediction.best?.label, "dog")
        XCTAssertEqual(prediction.guesses(3).map(\.label), ["dog", "2", "cat"])
        XCTAssertEqual(prediction.timing.total, .zero)
        XCTAssertEqual(Set([prediction, prediction]).count, 1)
        XCTAssertNil(Prediction(logits: [], bucket: bucket).best)
        let timing = Prediction.Timing(preprocess: .seconds(1), stem: .seconds(2), trunk: .seconds(3))
        XCTAssertEqual(timing.total, .seconds(6))
    }

    func testAnEmbeddingHasAVectorForEachPatch() throws {
        let bucket = DispatchTable.Bucket(name: "full", capacity: [], macs: 0)
        let tokens = try Embedding(values: [1, 2, 3, 4], shape: [2, 2], bucket: bucket)
        XCTAssertEqual(tokens.vectors.map { Array($0) }, [[1, 2], [3, 4]])
        let features = try Embedding(values: [1, 2, 3, 4], shape: [4], bucket: bucket)
        XCTAssertEqual(features.vectors.map { Array($0) }, [[1, 2, 3, 4]])
        XCTAssertEqual(features.timing.total, .zero)
        XCTAssertThrowsError(try Embedding(values: [1, 2, 3], shape: [2, 2], bucket: bucket))
        XCTAssertThrowsError(try Embedding(values: [1], shape: [], bucket: bucket))
    }

    func testAHeatMapIsEnlarged() throws {
        let map = try DepthMap(side: 2, depths: [0, 0, 4, 4], steps: 4)
        let blocks = map.rgba(size: 4)
        XCTAssertEqual(blocks.count, 4 * 4 * 4)
        XCTAssertEqual(blocks[0..<32], blocks[0..<16] + blocks[0..<16])
        XCTAssertEqual(Array(blocks[32..<36]), [0xcf, 0x1d, 0x2d, 255])
        let smooth = map.rgba(size: 4, interpolation: .linear)
        XCTAssertEqual(smooth[0..<16], blocks[0..<16])
        let between = DepthMap.color(depth: 1, lowest: 0, highest: 4).map { UInt8(($0 * 255).rounded()) }
        XCTAssertEqual(Array(smooth[16..<19]), between)
        XCTAssertEqual(map.rgba(size: 2), map.rgba())
        XCTAssertEqual(map.rgba(size: 2, interpolation: .linear), map.rgba())
        XCTAssertEqual(map.rgba(size: 0), [])
        XCTAssertEqual(map.rgba(size: -1), [])
    }

    func testColorsAreLegibleInDarkMode() {
        for depth in 0...255 {
            let color = DepthMap.color(depth: Double(depth), lowest: 0, highest: 255)
            XCTAssertGreaterThanOrEqual(contrastToBlack(color), 3, "\(depth)")  // WCAG 2.1, 1.4.11
        }
    }

    private func contrastToBlack(_ color: [Double]) -> Double {
        let linear = color.map { $0 <= 0.04045 ? $0 / 12.92 : pow(($0 + 0.055) / 1.055, 2.4) }
        return (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05) / 0.05
    }

    func testEveryErrorSaysWhatToDo() {
        let errors: [MoRViTError] = [
            .unreadableDescription(reason: "x"), .modelNotFound(place: "x"), .modelMismatch(reason: "x"),
            .needsNewerSystem(minimumIOS: 18), .imageTooSmall(width: 1, height: 2, needed: 3),
            .wrongSize(width: 1, height: 2, expected: 3), .wrongByteCount(got: 1, expected: 3),
            .unknownOrientation(0), .unusablePicture(step: "x", code: -1), .unexpectedOutput(reason: "x"),
            .otherOutput(.logits), .otherOutput(.features), .otherOutput(.tokens),
        ]
        for error in errors {
            XCTAssertEqual(error.localizedDescription, error.errorDescription)
            XCTAssertFalse(error.recoverySuggestion?.isEmpty ?? true)
        }
    }
}
