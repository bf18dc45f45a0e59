/* Calls a denoiser once, as a sampler does at each step. It is given as a file or folder. */
#include <luna.h>
#include <stdio.h>
#include <stdlib.h>

static void must(luna_status status) {
    if (status == LUNA_STATUS_OK) return;
    luna_error error = {0};
    error.size = sizeof error;
    luna_last_error(&error);
    fprintf(stderr, "%s: %s\n", luna_status_name(status), error.text);
    exit(1);
}

static luna_view view(const float *data, int rank, int64_t a, int64_t b, int64_t c, int64_t d) {
    luna_view view = {0};
    view.data = data, view.rank = (uint32_t)rank;
    view.shape[0] = a, view.shape[1] = b, view.shape[2] = c, view.shape[3] = d;
    return view;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: one_step DENOISER\n"), 1;
    luna_session session;
    luna_model model;
    must(luna_open(NULL, &session));
    must(luna_model_load(session, argv[1], NULL, &model));
    luna_model_info info = {0};
    info.size = sizeof info;
    must(luna_model_get_info(model, &info));

    int64_t channels = (int64_t)info.input_channels, width = (int64_t)info.context_width;
    float *noise = calloc((size_t)channels * 16 * 16, sizeof *noise), *tokens = calloc((size_t)width * 77, sizeof *tokens);
    const float steps[1] = {info.last_timestep};
    for (int i = 0; i < channels * 16 * 16; i++) noise[i] = (float)(i % 7) / 3 - 1;
    luna_view x = view(noise, 4, 1, channels, 16, 16), context = view(tokens, 3, 1, 77, width, 0);
    luna_view timesteps = view(steps, 1, 1, 0, 0, 0);
    luna_forward_input input = {0};
    input.size = sizeof input, input.x = &x, input.timesteps = &timesteps, input.context = &context;

    luna_tensor prediction;
    must(luna_model_forward(model, &input, NULL, &prediction, NULL));
    must(luna_tensor_view(prediction, &x));
    printf("%s\nprediction: %d x %d x %d x %d, first value %.4f\n", info.family, (int)x.shape[0], (int)x.shape[1],
           (int)x.shape[2], (int)x.shape[3], (double)*(const float *)x.data);
    free(noise), free(tokens);
    must(luna_tensor_free(prediction));
    must(luna_model_free(model));
    must(luna_close(session));
    return 0;
}
