import MoRViTKit
import PhotosUI
import SwiftUI

/// A picture from the library, or the sample: for the simulator, which has no camera.
struct PhotoScreen: View {
    struct Unreadable: LocalizedError {
        var errorDescription: String? { "The picture cannot be read. Choose another one." }
    }

    let recognizer: Recognizer
    let showsDepth: Bool

    @State private var item: PhotosPickerItem?
    @State private var photo: UIImage?
    @State private var failure: String?

    var body: some View {
        VStack {
            if let photo {
                Image(uiImage: photo)
                    .resizable()
                    .overlay {
                        if showsDepth, let map = recognizer.prediction?.depth {
                            DepthOverlay(map: map, share: share(of: photo))
                        }
                    }
                    .aspectRatio(photo.size, contentMode: .fit)
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

    private func share(of photo: UIImage) -> Double {
        recognizer.visibleShare(
            width: Int(photo.size.width * photo.scale), height: Int(photo.size.height * photo.scale)
        )
    }

    private func open() async {
        do {
            if let item, let data = try await item.loadTransferable(type: Data.self) {
                guard let image = UIImage(data: data) else { throw Unreadable() }
                photo = image
            } else if photo == nil {
                photo = Self.sample
            }
            if let photo {
                await recognizer.classify(try InputImage(photo))
            }
            failure = nil
        } catch {
            failure = error.localizedDescription
        }
    }

    /// `Sample.png` of the app.
    private static var sample: UIImage? {
        Bundle.main.url(forResource: "Sample", withExtension: "png")
            .flatMap { UIImage(contentsOfFile: $0.path) }
    }
}
