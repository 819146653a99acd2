import Foundation

/// What makes a picture upright: a mirroring of left and right, then quarter turns clockwise.
public struct Turn: Sendable, Hashable {
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

    /// The picture is upright already.
    static let upright = Turn(isMirrored: false, quarterTurns: 0)

    /// Do width and height change places?
    public var exchangesSides: Bool { quarterTurns % 2 == 1 }

    /// Rows of anything, turned.
    public func applied<Element>(to rows: [[Element]]) -> [[Element]] {
        let width = rows.first?.count ?? 0
        let (columns, lines) = exchangesSides ? (rows.count, width) : (width, rows.count)
        return (0..<lines).map { row in
            (0..<columns).map { column in
                let from = source(column: column, row: row, width: width, height: rows.count)
                return rows[from.row][from.column]
            }
        }
    }

    /// Where a pixel of the upright picture is stored, in a picture of `width` × `height` stored pixels.
    func source(column: Int, row: Int, width: Int, height: Int) -> (column: Int, row: Int) {
        let mirrored: (column: Int, row: Int)
        switch quarterTurns {
        case 1: mirrored = (row, height - 1 - column)
        case 2: mirrored = (width - 1 - column, height - 1 - row)
        case 3: mirrored = (width - 1 - row, column)
        default: mirrored = (column, row)
        }
        return (isMirrored ? width - 1 - mirrored.column : mirrored.column, mirrored.row)
    }
}
