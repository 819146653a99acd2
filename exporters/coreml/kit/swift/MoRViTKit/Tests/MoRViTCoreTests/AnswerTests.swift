import XCTest

@testable import MoRViTCore

final class AnswerTests: XCTestCase {
    /// Both sides compute in double precision: only the order of sums differs.
    private let equal = 1e-12

    func testProbabilitiesAndTheirOrder() throws {
        let model = try ModelDescription.bundled()
        for expected in try Vectors.load().softmax {
            let guesses = model.guesses(logits: expected.logits)
            XCTAssertEqual(guesses.map(\.index), expected.indices)
            XCTAssertEqual(guesses.map(\.label), expected.indices.map(model.label))
            for (guess, probability) in zip(guesses, expected.probabilities) {
                XCTAssertEqual(guess.probability, probability, accuracy: equal)
            }
        }
    }

    func testNoMoreGuessesThanClasses() throws {
        let model = try ModelDescription.bundled()
        let logits = [Float](repeating: 0, count: model.classes)
        XCTAssertEqual(model.guesses(logits: logits, count: model.classes + 1).count, model.classes)
        XCTAssertEqual(model.guesses(logits: logits, count: -1), [])
        XCTAssertEqual(softmax([]), [])
    }

    func testColoursAreThoseOfTheDepthPictures() throws {
        for expected in try Vectors.load().colours {
            let got = DepthMap.colour(
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
        XCTAssertEqual(Array(map.rgba()[0..<4]), [0x34, 0x50, 0xb4, 255])
        XCTAssertEqual(Array(map.rgba()[12..<16]), [0xcf, 0x1d, 0x2d, 255])
        XCTAssertEqual(map.mean, 1.5)
        XCTAssertEqual(map.lowest, 0)
        XCTAssertThrowsError(try DepthMap(side: 2, depths: [0, 1, 2, 4], steps: 3))
        XCTAssertThrowsError(try DepthMap(side: 2, depths: [0, 1, 2], steps: 3))
    }

    func testEveryErrorSaysWhatToDo() {
        let errors: [MoRViTError] = [
            .unreadableDescription(reason: "x"), .modelNotFound(place: "x"), .modelMismatch(reason: "x"),
            .needsNewerSystem(minimumIOS: 18), .imageTooSmall(width: 1, height: 2, needed: 3),
            .wrongSize(width: 1, height: 2, expected: 3), .wrongByteCount(got: 1, expected: 3),
            .unknownOrientation(0), .unusablePicture(step: "x", code: -1), .unexpectedOutput(reason: "x"),
        ]
        for error in errors {
            XCTAssertEqual(error.localizedDescription, error.errorDescription)
            XCTAssertFalse(error.recoverySuggestion?.isEmpty ?? true)
        }
    }
}
