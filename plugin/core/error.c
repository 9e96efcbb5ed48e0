#include "core/error.h"

#include <stdio.h>
#include <string.h>

void lf_error_setv(lf_error *err, lf_code code, const char *format, va_list args)
{
    if (!err)
        return;
    err->code = code;
    vsnprintf(err->text, sizeof err->text, format, args);
}

void lf_error_set(lf_error *err, lf_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    lf_error_setv(err, code, format, args);
    va_end(args);
}

void lf_error_prefix(lf_error *err, const char *format, ...)
{
    if (!err)
        return;
    const size_t size = sizeof err->text;
    char old[sizeof err->text];
    memcpy(old, err->text, size);
    va_list args;
    va_start(args, format);
    int written = vsnprintf(err->text, size, format, args);
    va_end(args);
    // What does not fit is cut at the end: the name of the thing stands in front.
    for (const char *s = ": "; *s && written >= 0 && (size_t)written + 1 < size; s++)
        err->text[written++] = *s;
    for (const char *s = old; *s && written >= 0 && (size_t)written + 1 < size; s++)
        err->text[written++] = *s;
    err->text[written < 0 ? 0 : (size_t)written < size ? (size_t)written : size - 1] = 0;
}

const char *lf_code_name(lf_code code)
{
    static const char *const names[] = {
        [LF_OK] = "ok",
        [LF_EARG] = "bad argument",
        [LF_ENOMEM] = "out of memory",
        [LF_ENOTFOUND] = "not found",
        [LF_EIO] = "input or output failed",
        [LF_EFORMAT] = "bad format",
        [LF_EDATA] = "bad data",
        [LF_EDEVICE] = "device failed",
        [LF_EUNSUPPORTED] = "not supported",
        [LF_EINTERRUPTED] = "interrupted",
    };
    _Static_assert(sizeof names / sizeof *names == LF_CODE_COUNT, "a name for each code");
    return (unsigned)code < LF_CODE_COUNT ? names[code] : "unknown error";
}
