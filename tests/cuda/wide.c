#include "wide.h"

enum { STEPS = 2 };

unsigned linked, unlinked;
char unlinked_why[512];

void on_wide_log(void *user, lf_log_level level, const char *text)
{
    (void)user;
    (void)level;
    linked += strstr(text, "exchange through NCCL") != NULL;
    if (!strstr(text, "devices exchange through the host"))
        return;
    unlinked++;
    snprintf(unlinked_why, sizeof unlinked_why, "%s", text);
}

trial *begin_wide(const char *const *devices, unsigned count, bool fast)
{
    static const lf_layer layers[] = {
        { .kind = LF_LAYER_LINEAR, .inputs = FEATURES, .outputs = 300 },
        { .kind = LF_LAYER_ACTIVATION, .activation = 1 },
        { .kind = LF_LAYER_LINEAR, .inputs = 300, .outputs = 220 },
        { .kind = LF_LAYER_BATCH_NORM, .inputs = 220, .outputs = 220, .eps = 1e-5f, .momentum = .1f },
        { .kind = LF_LAYER_LINEAR, .inputs = 220, .outputs = CLASSES }
    };
    trial *t = begin(data_path);
    lf_model_destroy(t->params.model);
    t->params.model = lf_model_create(layers, sizeof layers / sizeof *layers, &t->err);
    t->params.devices = devices;
    t->params.device_count = count;
    t->params.shards = 4;
    t->params.batch = 12;
    t->params.even_shards = true;
    t->params.fast = fast;
    t->params.epochs = 1;
    t->params.max_steps = STEPS;
    t->params.validation = NULL;
    linked = unlinked = 0;
    unlinked_why[0] = 0;
    return t;
}
