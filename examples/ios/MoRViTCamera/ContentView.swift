import MoRViTKit
import SwiftUI

/// Camera or photo, the answer below, compute units above.
struct ContentView: View {
    enum Source: String, CaseIterable, Identifiable {
        case camera = "Camera"
        case photo = "Photo"

        var id: Self { self }
    }

    let recogniser: Recogniser

    @AppStorage("computeUnits") private var units = ComputeUnits.all
    @AppStorage("showsDepth") private var showsDepth = true
    @State private var source = Source.camera

    var body: some View {
        NavigationStack {
            VStack(spacing: 12) {
                Picker("Source", selection: $source) {
                    ForEach(Source.allCases) { Text($0.rawValue).tag($0) }
                }
                .pickerStyle(.segmented)
                content
            }
            .padding()
            .navigationTitle("MoR-ViT")
            .navigationBarTitleDisplayMode(.inline)
            .toolbar { menu }
        }
        .task(id: units) { await recogniser.load(units) }
    }

    @ViewBuilder private var content: some View {
        switch recogniser.state {
        case .loading:
            Spacer()
            ProgressView("Opening the model")
            Spacer()
        case .failed(let failure):
            ContentUnavailableView(
                "The model does not open", systemImage: "exclamationmark.triangle",
                description: Text(failure.text)
            )
        case .ready:
            switch source {
            case .camera: CameraScreen(recogniser: recogniser, showsDepth: showsDepth)
            case .photo: PhotoScreen(recogniser: recogniser, showsDepth: showsDepth)
            }
            AnswerArea(recogniser: recogniser)
        }
    }

    private var menu: some ToolbarContent {
        ToolbarItem(placement: .topBarTrailing) {
            Menu("Options", systemImage: "slider.horizontal.3") {
                Picker("Compute units", selection: $units) {
                    ForEach(ComputeUnits.allCases) { Text($0.title).tag($0) }
                }
                Toggle("Depth heat map", isOn: $showsDepth)
                    .disabled(recogniser.classifier?.description.answersDepth != true)
            }
        }
    }
}

/// The newest answer, or what went wrong. A view of its own: it changes with every frame, the window does not.
struct AnswerArea: View {
    let recogniser: Recogniser

    var body: some View {
        if let problem = recogniser.problem {
            Text(problem.text).font(.footnote).foregroundStyle(.red)
        }
        if let prediction = recogniser.prediction {
            AnswerPanel(prediction: prediction)
        }
    }
}
