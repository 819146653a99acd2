import Foundation

/// What makes a picture upright: a mirroring of left and right, then quarter turns clockwise.
public struct Turn: Sendable, Equatable {
    /// Are left and right exchanged first?
    public let isMirrored: Bool
    /// Then so many quarter turns clockwise, 0 to 3.
    public let quarterTurns: Int

    /// The turn of an EXIF orientation, 1 to 8 (the raw value of `CGImagePropertyOrientation`).
    ///
    /// - Throws: ``MoRViTError/unknownOrientation(_:)``.
    public init(orientation: Int) throws {
        switch orientation {
        case 1: self.init(isMirrored: false, quarterTurns: 0)
        case 2: self.init(isMirrored: true, quarterTurns: 0)
        case 3: self.init(isMirrored: false, quarterTurns: 2)
        case 4: self.init(isMirrored: true, quarterTurns: 2)
        case 5: self.init(isMirrored: true, quarterTurns: 3)
        case 6: self.init(isMirrored: false, quarterTurns: 1)
        case 7: self.init(isMirrored: true, quarterTurns: 1)
        case 8: self.init(isMirrored: false, quarterTurns: 3)
        default: throw MoRViTError.unknownOrientation(orientation)
        }
    }

    private init(isMirrored: Bool, quarterTurns: Int) {
        self.isMirrored = isMirrored
        self.quarterTurns = quarterTurns
    }

    /// Do width and height change places?
    public var exchangesSides: Bool { quarterTurns % 2 == 1 }

    /// Rows of anything, turned: the arithmetic that the image path does with vImage.
    public func apply<Element>(to rows: [[Element]]) -> [[Element]] {
        var turned = isMirrored ? rows.map { Array($0.reversed()) } : rows
        for _ in 0..<quarterTurns {
            let before = turned
            turned = (0..<(before.first?.count ?? 0)).map { column in before.reversed().map { $0[column] } }
        }
        return turned
    }
}
