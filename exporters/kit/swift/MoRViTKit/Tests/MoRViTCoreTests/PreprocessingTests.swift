import XCTest

@testable import MoRViTCore

final class PreprocessingTests: XCTestCase {
    func testSizesAreThoseOfTraining() throws {
        let preprocessing = try Vectors.model().preprocessing
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

    func testWithoutResizingOnlyTheCenterIsCropped() throws {
        let preprocessing = Preprocessing(
            imageSize: 32, resize: nil, interpolation: "bicubic", mean: [0, 0, 0], std: [1, 1, 1]
        )
        let got = try preprocessing.geometry(width: 40, height: 33)
        XCTAssertEqual(got, Preprocessing.Geometry(width: 40, height: 33, left: 4, top: 0))
        XCTAssertEqual(preprocessing.visibleShare(width: 40, height: 64), 0.8)
    }

    func testASquashedPictureLosesItsShape() throws {
        let preprocessing = Preprocessing(
            imageSize: 32, resize: nil, interpolation: "bilinear", mean: [0, 0, 0], std: [1, 1, 1],
            squash: [35, 39], cropRounding: "down"
        )
        let got = try preprocessing.geometry(width: 640, height: 480)
        XCTAssertEqual(got, Preprocessing.Geometry(width: 39, height: 35, left: 3, top: 1))
        XCTAssertEqual(preprocessing.visibleShare(width: 640, height: 480), 32.0 / 35)
        XCTAssertNil(preprocessing.problem)
    }

    func testNormalizedNumbersAreThoseOfTraining() throws {
        let expected = try Vectors.load().normalized
        let pixels = try RGBPixels(width: expected.width, height: expected.height, bytes: expected.pixels)
        let got = try Vectors.model().preprocessing.normalized(pixels)
        XCTAssertEqual(got, expected.numbers)
    }

    func testPixelsAreThoseOfPillow() throws {
        let vectors = try Vectors.load()
        XCTAssertEqual(
            Set(vectors.prepared.map(\.preprocessing.interpolation)),
            Set(ResamplingFilter.allCases.map(\.rawValue))
        )
        for expected in vectors.prepared {
            let rgb = vectors.pictures[expected.picture]
            for layout in [PixelView.Layout.rgba, .bgra] {
                XCTAssertEqual(
                    try prepared(rgb, expected, layout), expected.pixels,
                    "\(expected.preprocessing), orientation \(expected.orientation), \(layout)"
                )
            }
        }
    }

    /// `rgb` in rows with four bytes of padding, prepared.
    private func prepared(
        _ rgb: [UInt8], _ expected: Vectors.Prepared, _ layout: PixelView.Layout
    ) throws -> [UInt8] {
        let rowBytes = 4 * expected.width + 4
        var memory = [UInt8](repeating: 99, count: rowBytes * expected.height)
        let (red, blue) = layout == .rgba ? (0, 2) : (2, 0)
        for place in 0..<expected.width * expected.height {
            let start = place / expected.width * rowBytes + 4 * (place % expected.width)
            memory[start + red] = rgb[3 * place]
            memory[start + 1] = rgb[3 * place + 1]
            memory[start + blue] = rgb[3 * place + 2]
        }
        let turn = try Turn(orientation: expected.orientation)
        return try memory.withUnsafeBytes { bytes in
            let start = try XCTUnwrap(bytes.baseAddress)
            let view = PixelView(
                start, width: expected.width, height: expected.height, rowBytes: rowBytes, layout: layout,
                turn: turn
            )
            return try expected.preprocessing.prepared(view, allowsUpscaling: true).bytes
        }
    }

    func testAnUnknownFilterIsRefused() throws {
        let preprocessing = Preprocessing(
            imageSize: 1, resize: nil, interpolation: "cubic", mean: [0, 0, 0], std: [1, 1, 1]
        )
        let pixel: [UInt8] = [1, 2, 3, 4]
        XCTAssertThrowsError(
            try pixel.withUnsafeBytes { bytes in
                let start = try XCTUnwrap(bytes.baseAddress)
                let view = PixelView(start, width: 1, height: 1, rowBytes: 4, layout: .rgba)
                return try preprocessing.prepared(view)
            }
        ) { error in
            XCTAssertTrue(error.localizedDescription.contains("cubic"), error.localizedDescription)
        }
    }

    func testEveryOrientationIsTurnedUpright() throws {
        let cases = try Vectors.load().orientation
        XCTAssertEqual(cases.map(\.orientation), Array(1...8))
        for expected in cases {
            let turn = try Turn(orientation: expected.orientation)
            XCTAssertEqual(turn.applied(to: expected.stored), expected.upright, "\(expected.orientation)")
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
