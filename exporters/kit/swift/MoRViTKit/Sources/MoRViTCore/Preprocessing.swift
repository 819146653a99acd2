import Foundation

/// From a picture to the model's image: it is resized, then the center is cropped.
///
/// It repeats what `morvit-deploy predict` does: the same sizes, the same filter, the same rounding.
public struct Preprocessing: Codable, Sendable, Hashable {
    /// Side of the square that is cropped, in pixels.
    public let imageSize: Int
    /// What the shorter side is resized to; nil: it keeps its size, unless ``squash`` is given.
    public let resize: Int?
    /// Height and width that the picture is resized to, whatever its shape; nil: its shape is kept.
    public let squash: [Int]?
    /// How half of an odd margin of the crop is rounded: `down`, or nil to the even pixel.
    public let cropRounding: String?
    /// The filter that the model was trained with: `nearest`, `box`, `bilinear`, `hamming`, `bicubic` or `lanczos`.
    public let interpolation: String
    /// Of red, green and blue, in [0, 1].
    public let mean: [Double]
    /// Of red, green and blue, in [0, 1].
    public let std: [Double]

    /// All values, for tests and for models that are described elsewhere.
    public init(
        imageSize: Int, resize: Int?, interpolation: String, mean: [Double], std: [Double], squash: [Int]? = nil,
        cropRounding: String? = nil
    ) {
        self.imageSize = imageSize
        self.resize = resize
        self.squash = squash
        self.cropRounding = cropRounding
        self.interpolation = interpolation
        self.mean = mean
        self.std = std
    }

    /// The size to resize to, and where the crop begins in it.
    public struct Geometry: Sendable, Hashable {
        /// Width of the resized picture.
        public let width: Int
        /// Height of the resized picture.
        public let height: Int
        /// First column of the crop.
        public let left: Int
        /// First row of the crop.
        public let top: Int

        /// All values.
        public init(width: Int, height: Int, left: Int, top: Int) {
            self.width = width
            self.height = height
            self.left = left
            self.top = top
        }
    }

    /// How a picture of `width` × `height` pixels, already upright, is resized and cropped.
    ///
    /// - Parameter allowsUpscaling: Enlarge a picture that is smaller than the crop instead of refusing it.
    /// - Throws: ``MoRViTError/imageTooSmall(width:height:needed:)``.
    public func geometry(width: Int, height: Int, allowsUpscaling: Bool = false) throws -> Geometry {
        let shorter = min(width, height)
        guard shorter > 0, allowsUpscaling || shorter >= imageSize else {
            throw MoRViTError.imageTooSmall(width: width, height: height, needed: imageSize)
        }
        let target = resize ?? max(imageSize, shorter)
        let resizedWidth = squash?[1] ?? target * width / shorter  // rounded down, as training pipelines do
        let resizedHeight = squash?[0] ?? target * height / shorter
        return Geometry(
            width: resizedWidth, height: resizedHeight,
            left: half(of: resizedWidth - imageSize), top: half(of: resizedHeight - imageSize)
        )
    }

    /// Where a crop begins in a margin.
    private func half(of margin: Int) -> Int {
        cropRounding == "down" ? margin / 2 : Self.halfToEven(margin)
    }

    /// The model's image: a picture, already upright, resized with the model's filter and cropped.
    ///
    /// - Throws: ``MoRViTError/imageTooSmall(width:height:needed:)``, or
    ///   ``MoRViTError/unreadableDescription(reason:)`` when the values do not agree.
    package func prepared(_ picture: PixelView, allowsUpscaling: Bool = false) throws -> RGBPixels {
        guard problem == nil, let filter = ResamplingFilter(rawValue: interpolation) else {
            throw MoRViTError.unreadableDescription(reason: problem ?? interpolation)
        }
        let geometry = try geometry(
            width: picture.width, height: picture.height, allowsUpscaling: allowsUpscaling
        )
        let bytes = picture.resampled(to: geometry, side: imageSize, filter: filter)
        return try RGBPixels(width: imageSize, height: imageSize, bytes: bytes)
    }

    /// The part of a picture's shorter side that the model sees, for drawing over the picture.
    public func visibleShare(width: Int, height: Int) -> Double {
        let squashed = squash.map { width <= height ? $0[1] : $0[0] }
        return Double(imageSize) / Double(squashed ?? resize ?? max(imageSize, min(width, height)))
    }

    /// Prepared pixels as the numbers of a model whose input is ``ModelDescription/Input/normalized``:
    /// (3, height, width), (x / 255 − mean) / std.
    public func normalized(_ pixels: RGBPixels) -> [Float] {
        let plane = pixels.width * pixels.height
        var numbers = [Float](repeating: 0, count: 3 * plane)
        for channel in 0..<3 {
            let mean = mean[channel]
            let std = std[channel]
            for place in 0..<plane {
                let scaled = Double(pixels.bytes[3 * place + channel]) / 255
                numbers[channel * plane + place] = Float((scaled - mean) / std)
            }
        }
        return numbers
    }

    /// What is wrong with the values, or nil.
    var problem: String? {
        let filters = ResamplingFilter.allCases.map(\.rawValue)
        if !filters.contains(interpolation) {
            return "interpolation: got \(interpolation), expected one of \(filters)"
        }
        if imageSize < 1 {
            return "imageSize: got \(imageSize), expected at least 1"
        }
        if let resize, resize < imageSize {
            return "resize: got \(resize), expected at least imageSize \(imageSize)"
        }
        if let squash, squash.count != 2 || squash.contains(where: { $0 < imageSize }) {
            return "squash: got \(squash), expected height and width of at least imageSize \(imageSize)"
        }
        if let cropRounding, cropRounding != "down" {
            return "cropRounding: got \(cropRounding), expected down or nothing"
        }
        if mean.count != 3 || std.count != 3 {
            return "got \(mean.count) means and \(std.count) standard deviations, expected 3 of each"
        }
        return nil
    }

    /// `difference` / 2, a half to the even neighbour: Python's `round`.
    static func halfToEven(_ difference: Int) -> Int {
        Int((Double(difference) / 2).rounded(.toNearestOrEven))
    }
}
