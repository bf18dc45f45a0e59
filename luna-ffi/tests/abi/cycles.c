/* Opens and closes 10 000 sessions, with a model and a call in some of them, and tells by how many KiB the process grew. */
#include <luna.h>

#include <stdio.h>
#include <stdlib.h>

static void check(luna_status status) {
    luna_error error = {0};
    if (status == LUNA_STATUS_OK) return;
    error.size = sizeof error;
    luna_last_error(&error);
    fprintf(stderr, "%s\n", error.text);
    exit(1);
}

/* Memory that this process holds, in KiB; counts the session that is open for it out of the handles. */
static unsigned long held(uint64_t *handles) {
    luna_session session;
    luna_stats stats = {0};
    stats.size = sizeof stats;
    check(luna_open(NULL, &session));
    check(luna_get_stats(session, &stats));
    check(luna_close(session));
    *handles = stats.handles - 1;
    return (unsigned long)(stats.resident_bytes / 1024);
}

static void cycle(int with_model) {
    static const float pixels[8 * 8 * 3];
    luna_session session;
    luna_call call;
    luna_list list;
    luna_vae vae;
    luna_tensor latent;
    luna_view view = {0};
    check(luna_open(NULL, &session));
    check(luna_call_new(NULL, &call));
    check(luna_list_residents(session, &list));
    if (with_model) {
        view.data = pixels, view.rank = 4;
        view.shape[0] = 1, view.shape[1] = 8, view.shape[2] = 8, view.shape[3] = 3;
        check(luna_vae_load(session, "moonlet", &vae));
        check(luna_vae_encode(vae, &view, NULL, &latent, NULL));
        check(luna_tensor_free(latent));
        check(luna_vae_free(vae));
    }
    check(luna_list_free(list));
    check(luna_call_free(call));
    check(luna_close(session));
}

int main(void) {
    uint64_t handles, left;
    unsigned long before, after;
    int at;
    for (at = 0; at < 20; at++) cycle(1);
    for (at = 0; at < 500; at++) cycle(0);
    before = held(&handles);
    for (at = 0; at < 10000; at++) cycle(at % 500 == 0);
    after = held(&left);
    printf("%lu KiB more after 10000 cycles, %lu handles left\n", after > before ? after - before : 0,
           (unsigned long)(left - handles));
    return 0;
}
