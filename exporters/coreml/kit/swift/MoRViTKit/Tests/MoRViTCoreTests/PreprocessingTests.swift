import XCTest

@testable import MoRViTCore

final class PreprocessingTests: XCTestCase {
    func testSizesAreThoseOfTraining() throws {
        let preprocessing = try ModelDescription.bundled().preprocessing
        for expected in try Vectors.load().geometry {
            let got = try preprocessing.geometry(width: expected.width, height: expected.height)
            XCTAssertEqual(
                got,
                Preprocessing.Geometry(
                    width: expected.resizedWidth, height: expected.resizedHeight, left: expected.left,
                    top: expected.top
                ),
                "\(expected.width)×\(expected.height)"
            )
        }
    }

    func testAHalfGoesToTheEvenNeighbour() {
        XCTAssertEqual([0, 1, 2, 3, 5, 7].map(Preprocessing.halfToEven), [0, 0, 1, 2, 2, 4])
    }

    func testASmallPictureIsRefusedUnlessItMayGrow() throws {
        let preprocessing = Preprocessing(
            imageSize: 32, resize: 36, interpolation: "bicubic", mean: [0, 0, 0], std: [1, 1, 1]
        )
        XCTAssertThrowsError(try preprocessing.geometry(width: 31, height: 90)) { error in
            XCTAssertEqual(error as? MoRViTError, .imageTooSmall(width: 31, height: 90, needed: 32))
        }
        let grown = try preprocessing.geometry(width: 18, height: 27, allowsUpscaling: true)
        XCTAssertEqual(grown, Preprocessing.Geometry(width: 36, height: 54, left: 2, top: 11))
        XCTAssertThrowsError(try preprocessing.geometry(width: 0, height: 0, allowsUpscaling: true))
    }

    func testWithoutResizingOnlyTheCentreIsCropped() throws {
        let preprocessing = Preprocessing(
            imageSize: 32, resize: nil, interpolation: "bicubic", mean: [0, 0, 0], std: [1, 1, 1]
        )
        let got = try preprocessing.geometry(width: 40, height: 33)
        XCTAssertEqual(got, Preprocessing.Geometry(width: 40, height: 33, left: 4, top: 0))
        XCTAssertEqual(preprocessing.visibleShare(width: 40, height: 64), 0.8)
    }

    func testNormalisedNumbersAreThoseOfTraining() throws {
        let expected = try Vectors.load().normalised
        let pixels = try RGBPixels(width: expected.width, height: expected.height, bytes: expected.pixels)
        let got = try ModelDescription.bundled().preprocessing.normalise(pixels)
        XCTAssertEqual(got, expected.numbers)
    }

    func testEveryOrientationIsTurnedUpright() throws {
        let cases = try Vectors.load().orientation
        XCTAssertEqual(cases.map(\.orientation), Array(1...8))
        for expected in cases {
            let turn = try Turn(orientation: expected.orientation)
            XCTAssertEqual(turn.apply(to: expected.stored), expected.upright, "\(expected.orientation)")
            XCTAssertEqual(turn.exchangesSides, expected.upright.count != expected.stored.count)
        }
    }

    func testAnUnknownOrientationIsRefused() {
        XCTAssertThrowsError(try Turn(orientation: 9)) { error in
            XCTAssertEqual(error as? MoRViTError, .unknownOrientation(9))
        }
    }

    func testPixelsOfAnotherSizeAreRefused() throws {
        XCTAssertThrowsError(try RGBPixels(width: 2, height: 2, bytes: [0, 0, 0])) { error in
            XCTAssertEqual(error as? MoRViTError, .wrongByteCount(got: 3, expected: 12))
        }
        let pixels = try RGBPixels(width: 2, height: 1, bytes: [0, 0, 0, 0, 0, 0])
        XCTAssertThrowsError(try pixels.check(imageSize: 2)) { error in
            XCTAssertEqual(error as? MoRViTError, .wrongSize(width: 2, height: 1, expected: 2))
        }
    }
}
