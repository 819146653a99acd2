import ImageIO
import MoRViTKit
import PhotosUI
import SwiftUI

/// A picture from the library, or the sample: for the simulator, which has no camera.
struct PhotoScreen: View {
    let recogniser: Recogniser
    let showsDepth: Bool

    @State private var item: PhotosPickerItem?
    @State private var photo: Photo?
    @State private var failure: String?

    var body: some View {
        VStack {
            if let photo {
                Image(photo.image, scale: 1, orientation: photo.swiftUIOrientation, label: Text("The picture"))
                    .resizable()
                    .overlay {
                        if showsDepth, let map = recogniser.prediction?.depth {
                            DepthOverlay(
                                map: map, share: recogniser.visibleShare(width: photo.width, height: photo.height)
                            )
                        }
                    }
                    .aspectRatio(CGFloat(photo.width) / CGFloat(photo.height), contentMode: .fit)
                    .clipShape(RoundedRectangle(cornerRadius: 16))
            }
            if let failure {
                Text(failure).font(.footnote).foregroundStyle(.red)
            }
            PhotosPicker("Choose a photo", selection: $item, matching: .images)
        }
        .frame(maxWidth: .infinity, maxHeight: .infinity)
        .task(id: item) { await open() }
    }

    private func open() async {
        do {
            if let item, let data = try await item.loadTransferable(type: Data.self) {
                photo = try Photo(data)
            } else if photo == nil {
                photo = .sample
            }
            if let photo {
                await recogniser.classify(try photo.input())
            }
            failure = nil
        } catch {
            failure = error.localizedDescription
        }
    }
}

/// A decoded picture and how it was held.
struct Photo {
    struct Unreadable: LocalizedError {
        var errorDescription: String? { "The picture cannot be read. Choose another one." }
    }

    let image: CGImage
    let orientation: CGImagePropertyOrientation

    /// `Sample.png` of the app.
    static var sample: Photo? {
        Bundle.main.url(forResource: "Sample", withExtension: "png")
            .flatMap { try? Data(contentsOf: $0) }
            .flatMap { try? Photo($0) }
    }

    init(_ data: Data) throws {
        guard
            let source = CGImageSourceCreateWithData(data as CFData, nil),
            let image = CGImageSourceCreateImageAtIndex(source, 0, nil)
        else { throw Unreadable() }
        let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any]
        let raw = properties?[kCGImagePropertyOrientation] as? UInt32
        self.image = image
        orientation = raw.flatMap { CGImagePropertyOrientation(rawValue: $0) } ?? .up
    }

    var width: Int { isLying ? image.height : image.width }
    var height: Int { isLying ? image.width : image.height }

    func input() throws -> InputImage {
        try InputImage(image, orientation: orientation)
    }

    var swiftUIOrientation: Image.Orientation {
        switch orientation {
        case .up: return .up
        case .upMirrored: return .upMirrored
        case .down: return .down
        case .downMirrored: return .downMirrored
        case .left: return .left
        case .leftMirrored: return .leftMirrored
        case .right: return .right
        case .rightMirrored: return .rightMirrored
        }
    }

    private var isLying: Bool { orientation.rawValue >= 5 }
}
