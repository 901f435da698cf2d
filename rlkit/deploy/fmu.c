/* A policy as an FMI 2.0 co-simulation unit (fmi-standard.org; the types and names below are the standard's).

   Decisions are made at start + n period, n = 0, 1, ...: a step from t to t + h makes those that lie in [t, t + h), with
   the inputs that were set for it, and its outputs are held until the next one. period = 0: one decision per step. */
#include "model.h"

#include <stddef.h>
#include <string.h>

#if defined(_WIN32)
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif
#define MOST_DECISIONS 1e6 /* in one step: more of them are an error of whoever set the period */

typedef void *fmi2Component;
typedef void *fmi2FMUstate;
typedef unsigned int fmi2ValueReference;
typedef double fmi2Real;
typedef int fmi2Integer;
typedef int fmi2Boolean;
typedef const char *fmi2String;
typedef char fmi2Byte;
typedef enum { fmi2OK, fmi2Warning, fmi2Discard, fmi2Error, fmi2Fatal, fmi2Pending } fmi2Status;
typedef enum { fmi2ModelExchange, fmi2CoSimulation } fmi2Type;
typedef enum { fmi2DoStepStatus, fmi2PendingStatus, fmi2LastSuccessfulTime, fmi2Terminated } fmi2StatusKind;
typedef struct {
    void (*logger)(void *, fmi2String, fmi2Status, fmi2String, fmi2String, ...);
    void *(*allocateMemory)(size_t, size_t);
    void (*freeMemory)(void *);
    void (*stepFinished)(void *, fmi2Status);
    void *componentEnvironment;
} fmi2CallbackFunctions;

/* All that changes, and so all that is saved. */
typedef struct {
    Values values;
    rlkit_policy_t policy;
    double start, time;
    double decisions; /* made since the start: a whole number */
    int reset;        /* the input's value in the step before */
    int running;      /* whether initialization is over */
} State;

typedef struct {
    State state;
    fmi2CallbackFunctions call;
    char name[64];
} Instance;

/* What serialized states begin with: those of other policies are refused. */
static const char MARK[64] = MODEL_GUID;

static fmi2Status fail(const Instance *m, const char *text) {
    if (m->call.logger) m->call.logger(m->call.componentEnvironment, m->name, fmi2Error, "logStatusError", "%s", text);
    return fmi2Error;
}

static void begin(State *s) {
    memset(s, 0, sizeof *s);
    set_starts(&s->values);
    rlkit_policy_reset(&s->policy);
}

API const char *fmi2GetTypesPlatform(void) { return "default"; }
API const char *fmi2GetVersion(void) { return "2.0"; }

API fmi2Component fmi2Instantiate(fmi2String name, fmi2Type type, fmi2String guid, fmi2String resources,
                                  const fmi2CallbackFunctions *call, fmi2Boolean visible, fmi2Boolean logging) {
    (void)resources, (void)visible, (void)logging;
    if (!call || !call->allocateMemory || !call->freeMemory || !guid) return NULL;
    if (type != fmi2CoSimulation || strcmp(guid, MODEL_GUID) != 0) {
        if (call->logger) {
            call->logger(call->componentEnvironment, name ? name : "", fmi2Error, "logStatusError",
                         "this is a co-simulation unit with the GUID %s", MODEL_GUID);
        }
        return NULL;
    }
    Instance *m = (Instance *)call->allocateMemory(1, sizeof *m);
    if (!m) return NULL;
    memset(m, 0, sizeof *m);
    m->call = *call;
    if (name) strncpy(m->name, name, sizeof m->name - 1);
    begin(&m->state);
    return m;
}

API void fmi2FreeInstance(fmi2Component c) {
    if (c) ((Instance *)c)->call.freeMemory(c);
}

API fmi2Status fmi2SetDebugLogging(fmi2Component c, fmi2Boolean on, size_t n, const fmi2String categories[]) {
    (void)c, (void)on, (void)n, (void)categories;
    return fmi2OK;
}

API fmi2Status fmi2SetupExperiment(fmi2Component c, fmi2Boolean toleranceDefined, fmi2Real tolerance, fmi2Real start,
                                   fmi2Boolean stopDefined, fmi2Real stop) {
    (void)toleranceDefined, (void)tolerance, (void)stopDefined, (void)stop;
    ((Instance *)c)->state.start = ((Instance *)c)->state.time = start;
    return fmi2OK;
}

API fmi2Status fmi2EnterInitializationMode(fmi2Component c) {
    (void)c;
    return fmi2OK;
}

API fmi2Status fmi2ExitInitializationMode(fmi2Component c) {
    Instance *m = (Instance *)c;
    if (!(m->state.values.real[PERIOD] >= 0 && m->state.values.real[PERIOD] <= 1e9)) {
        return fail(m, "period is seconds from 0 (one decision per step) to 1e9");
    }
    m->state.running = 1;
    return fmi2OK;
}

API fmi2Status fmi2Terminate(fmi2Component c) {
    (void)c;
    return fmi2OK;
}

API fmi2Status fmi2Reset(fmi2Component c) {
    begin(&((Instance *)c)->state);
    return fmi2OK;
}

/* Whether all of these references are below count. */
static int among(const fmi2ValueReference vr[], size_t n, unsigned int count) {
    for (size_t i = 0; i < n; ++i) {
        if (vr[i] >= count) return 0;
    }
    return 1;
}

/* Variables: settable are the first of each type, and `period` until initialization is over. */
API fmi2Status fmi2GetReal(fmi2Component c, const fmi2ValueReference vr[], size_t n, fmi2Real value[]) {
    const Instance *m = (const Instance *)c;
    if (!among(vr, n, REALS)) return fail(m, "a value reference that no Real has");
    for (size_t i = 0; i < n; ++i) value[i] = m->state.values.real[vr[i]];
    return fmi2OK;
}

API fmi2Status fmi2SetReal(fmi2Component c, const fmi2ValueReference vr[], size_t n, const fmi2Real value[]) {
    Instance *m = (Instance *)c;
    if (!among(vr, n, SETTABLE_REALS)) return fail(m, "a value reference of no Real that can be set");
    for (size_t i = 0; i < n; ++i) {
        if (vr[i] == PERIOD && m->state.running) return fail(m, "period is set before the simulation begins");
    }
    for (size_t i = 0; i < n; ++i) m->state.values.real[vr[i]] = value[i];
    return fmi2OK;
}

API fmi2Status fmi2GetInteger(fmi2Component c, const fmi2ValueReference vr[], size_t n, fmi2Integer value[]) {
    const Instance *m = (const Instance *)c;
    if (!among(vr, n, INTEGERS)) return fail(m, "a value reference that no Integer has");
    for (size_t i = 0; i < n; ++i) value[i] = m->state.values.integer[vr[i]];
    return fmi2OK;
}

API fmi2Status fmi2SetInteger(fmi2Component c, const fmi2ValueReference vr[], size_t n, const fmi2Integer value[]) {
    Instance *m = (Instance *)c;
    if (!among(vr, n, SETTABLE_INTEGERS)) return fail(m, "a value reference of no Integer that can be set");
    for (size_t i = 0; i < n; ++i) m->state.values.integer[vr[i]] = value[i];
    return fmi2OK;
}

API fmi2Status fmi2GetBoolean(fmi2Component c, const fmi2ValueReference vr[], size_t n, fmi2Boolean value[]) {
    const Instance *m = (const Instance *)c;
    if (!among(vr, n, BOOLEANS)) return fail(m, "a value reference that no Boolean has");
    for (size_t i = 0; i < n; ++i) value[i] = m->state.values.boolean[vr[i]];
    return fmi2OK;
}

API fmi2Status fmi2SetBoolean(fmi2Component c, const fmi2ValueReference vr[], size_t n, const fmi2Boolean value[]) {
    Instance *m = (Instance *)c;
    if (!among(vr, n, SETTABLE_BOOLEANS)) return fail(m, "a value reference of no Boolean that can be set");
    for (size_t i = 0; i < n; ++i) m->state.values.boolean[vr[i]] = value[i] != 0;
    return fmi2OK;
}

API fmi2Status fmi2GetString(fmi2Component c, const fmi2ValueReference vr[], size_t n, fmi2String value[]) {
    (void)vr, (void)value;
    return n ? fail((Instance *)c, "there are no Strings") : fmi2OK;
}

API fmi2Status fmi2SetString(fmi2Component c, const fmi2ValueReference vr[], size_t n, const fmi2String value[]) {
    (void)vr, (void)value;
    return n ? fail((Instance *)c, "there are no Strings") : fmi2OK;
}

static fmi2Status decided(Instance *m) {
    static const char *const WORDS[] = {"", "an input is NaN or infinite", "an input lies outside of its choices",
                                        "the mask allows nothing"};
    const int code = decide(&m->state.policy, &m->state.values);
    return code == RLKIT_OK ? fmi2OK : fail(m, WORDS[code]);
}

API fmi2Status fmi2DoStep(fmi2Component c, fmi2Real t, fmi2Real h, fmi2Boolean noSetState) {
    (void)noSetState;
    Instance *m = (Instance *)c;
    State *s = &m->state;
    const double period = s->values.real[PERIOD];
    if (!s->running) return fail(m, "a step before initialization is over");
    if (!(h >= 0)) return fail(m, "a step of negative length");
    if (s->values.boolean[RESET] && !s->reset) rlkit_policy_reset(&s->policy);
    s->reset = s->values.boolean[RESET];
    if (period == 0) {
        const fmi2Status status = decided(m);
        if (status != fmi2OK) return status;
    } else {
        /* a decision at the end of the step belongs to the next one, also where t + h is rounded */
        const double end = t + h - 1e-6 * period;
        if ((end - s->start) / period - s->decisions > MOST_DECISIONS) return fail(m, "period is too short for such steps");
        while (s->start + s->decisions * period < end) {
            const fmi2Status status = decided(m);
            if (status != fmi2OK) return status;
            s->decisions += 1;
        }
    }
    s->time = t + h;
    return fmi2OK;
}

API fmi2Status fmi2CancelStep(fmi2Component c) { return fail((Instance *)c, "no step is under way"); }

API fmi2Status fmi2SetRealInputDerivatives(fmi2Component c, const fmi2ValueReference vr[], size_t n,
                                           const fmi2Integer order[], const fmi2Real value[]) {
    (void)vr, (void)n, (void)order, (void)value;
    return fail((Instance *)c, "inputs are held, and have no derivatives");
}

API fmi2Status fmi2GetRealOutputDerivatives(fmi2Component c, const fmi2ValueReference vr[], size_t n,
                                            const fmi2Integer order[], fmi2Real value[]) {
    (void)vr, (void)n, (void)order, (void)value;
    return fail((Instance *)c, "outputs are held, and have no derivatives");
}

API fmi2Status fmi2GetStatus(fmi2Component c, const fmi2StatusKind kind, fmi2Status *value) {
    (void)c, (void)kind, (void)value;
    return fmi2Discard;
}

API fmi2Status fmi2GetRealStatus(fmi2Component c, const fmi2StatusKind kind, fmi2Real *value) {
    if (kind != fmi2LastSuccessfulTime) return fmi2Discard;
    *value = ((Instance *)c)->state.time;
    return fmi2OK;
}

API fmi2Status fmi2GetIntegerStatus(fmi2Component c, const fmi2StatusKind kind, fmi2Integer *value) {
    (void)c, (void)kind, (void)value;
    return fmi2Discard;
}

API fmi2Status fmi2GetBooleanStatus(fmi2Component c, const fmi2StatusKind kind, fmi2Boolean *value) {
    if (kind != fmi2Terminated) return fmi2Discard;
    (void)c;
    *value = 0;
    return fmi2OK;
}

API fmi2Status fmi2GetStringStatus(fmi2Component c, const fmi2StatusKind kind, fmi2String *value) {
    (void)c, (void)kind, (void)value;
    return fmi2Discard;
}

API fmi2Status fmi2GetFMUstate(fmi2Component c, fmi2FMUstate *saved) {
    Instance *m = (Instance *)c;
    if (!*saved) *saved = m->call.allocateMemory(1, sizeof(State));
    if (!*saved) return fail(m, "no memory for a state");
    memcpy(*saved, &m->state, sizeof(State));
    return fmi2OK;
}

API fmi2Status fmi2SetFMUstate(fmi2Component c, fmi2FMUstate saved) {
    if (!saved) return fail((Instance *)c, "no state was given");
    memcpy(&((Instance *)c)->state, saved, sizeof(State));
    return fmi2OK;
}

API fmi2Status fmi2FreeFMUstate(fmi2Component c, fmi2FMUstate *saved) {
    if (saved && *saved) {
        ((Instance *)c)->call.freeMemory(*saved);
        *saved = NULL;
    }
    return fmi2OK;
}

API fmi2Status fmi2SerializedFMUstateSize(fmi2Component c, fmi2FMUstate saved, size_t *size) {
    (void)c, (void)saved;
    *size = sizeof MARK + sizeof(State);
    return fmi2OK;
}

API fmi2Status fmi2SerializeFMUstate(fmi2Component c, fmi2FMUstate saved, fmi2Byte data[], size_t size) {
    if (!saved || size < sizeof MARK + sizeof(State)) return fail((Instance *)c, "no state, or no room for it");
    memcpy(data, MARK, sizeof MARK);
    memcpy(data + sizeof MARK, saved, sizeof(State));
    return fmi2OK;
}

API fmi2Status fmi2DeSerializeFMUstate(fmi2Component c, const fmi2Byte data[], size_t size, fmi2FMUstate *saved) {
    Instance *m = (Instance *)c;
    if (size != sizeof MARK + sizeof(State) || memcmp(data, MARK, sizeof MARK) != 0) {
        return fail(m, "the state is of another policy");
    }
    if (!*saved) *saved = m->call.allocateMemory(1, sizeof(State));
    if (!*saved) return fail(m, "no memory for a state");
    memcpy(*saved, data + sizeof MARK, sizeof(State));
    return fmi2OK;
}

API fmi2Status fmi2GetDirectionalDerivative(fmi2Component c, const fmi2ValueReference unknown[], size_t n,
                                            const fmi2ValueReference known[], size_t k, const fmi2Real by[],
                                            fmi2Real value[]) {
    (void)unknown, (void)n, (void)known, (void)k, (void)by, (void)value;
    return fail((Instance *)c, "there are no derivatives");
}
