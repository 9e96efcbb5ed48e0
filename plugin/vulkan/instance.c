// The loader, the one instance of this process, and the messages of the validation layer.
#define VOLK_IMPLEMENTATION
#include "vulkan/internal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

#define VALIDATION_LAYER "VK_LAYER_KHRONOS_validation"

typedef enum validation_mode { VALIDATION_OFF, VALIDATION_ON, VALIDATION_SYNC } validation_mode;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
// The instance outlives its users: drivers load slowly (lavapipe brings LLVM) and do not unload cleanly. It goes only
// when another kind of validation is asked for.
static VkInstance instance;
static size_t users;
static VkDebugUtilsMessengerEXT messenger;
static validation_mode mode; // of `instance`

static pthread_mutex_t message_lock = PTHREAD_MUTEX_INITIALIZER;
static char message[900]; // the validation layer's first error since the last check; empty: none

static const char *result_name(VkResult result)
{
#define NAME(value)                                                                                                    \
    case value:                                                                                                        \
        return #value
    switch (result) {
        NAME(VK_NOT_READY);
        NAME(VK_TIMEOUT);
        NAME(VK_INCOMPLETE);
        NAME(VK_ERROR_OUT_OF_HOST_MEMORY);
        NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY);
        NAME(VK_ERROR_INITIALIZATION_FAILED);
        NAME(VK_ERROR_DEVICE_LOST);
        NAME(VK_ERROR_MEMORY_MAP_FAILED);
        NAME(VK_ERROR_LAYER_NOT_PRESENT);
        NAME(VK_ERROR_EXTENSION_NOT_PRESENT);
        NAME(VK_ERROR_FEATURE_NOT_PRESENT);
        NAME(VK_ERROR_INCOMPATIBLE_DRIVER);
        NAME(VK_ERROR_TOO_MANY_OBJECTS);
        NAME(VK_ERROR_FORMAT_NOT_SUPPORTED);
        NAME(VK_ERROR_FRAGMENTED_POOL);
        NAME(VK_ERROR_OUT_OF_POOL_MEMORY);
        NAME(VK_ERROR_INVALID_SHADER_NV);
        NAME(VK_ERROR_UNKNOWN);
    default:
        return "VkResult";
    }
#undef NAME
}

bool vk_error(lf_error *err, VkResult result, const char *format, ...)
{
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bool memory = result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY ||
                  result == VK_ERROR_OUT_OF_POOL_MEMORY;
    lf_error_set(err, memory ? LF_ENOMEM : LF_EDEVICE, "%s: %s (%d)", text, result_name(result), result);
    return false;
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)types;
    (void)user;
    if (!(severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT)) {
        lf_log(LF_LOG_WARN, "vulkan: %s", data->pMessage);
        return VK_FALSE;
    }
    lf_log(LF_LOG_ERROR, "vulkan: %s", data->pMessage);
    pthread_mutex_lock(&message_lock);
    if (!message[0])
        snprintf(message, sizeof message, "%s", data->pMessage);
    pthread_mutex_unlock(&message_lock);
    return VK_FALSE;
}

bool vk_validation_check(lf_error *err)
{
    pthread_mutex_lock(&message_lock);
    bool clean = !message[0];
    if (!clean)
        lf_error_set(err, LF_EDEVICE, "Vulkan validation: %s", message);
    message[0] = 0;
    pthread_mutex_unlock(&message_lock);
    return clean;
}

static bool has_validation_layer(void)
{
    uint32_t count = 0;
    bool found = false;
    vkEnumerateInstanceLayerProperties(&count, NULL);
    VkLayerProperties *layers = calloc(count ? count : 1, sizeof *layers);
    if (layers && vkEnumerateInstanceLayerProperties(&count, layers) >= 0)
        for (uint32_t i = 0; i < count && !found; i++)
            found = !strcmp(layers[i].layerName, VALIDATION_LAYER);
    free(layers);
    return found;
}

static validation_mode asked_mode(void)
{
    const char *asked = getenv("LAVAFLOW_VALIDATION");
    if (!asked || !asked[0] || !strcmp(asked, "0"))
        return VALIDATION_OFF;
    return strcmp(asked, "sync") ? VALIDATION_ON : VALIDATION_SYNC;
}

static void destroy(void)
{
    if (messenger)
        vkDestroyDebugUtilsMessengerEXT(instance, messenger, NULL);
    if (instance)
        vkDestroyInstance(instance, NULL);
    messenger = VK_NULL_HANDLE;
    instance = NULL;
}

static bool create(lf_error *err)
{
    // volk fails for one reason only: there is no loader to open.
    if (volkInitialize() != VK_SUCCESS) {
        lf_error_set(err, LF_ENOTFOUND, "libvulkan.so.1 is not installed or cannot be opened");
        return false;
    }
    if (volkGetInstanceVersion() < VK_API_VERSION_1_2) {
        lf_error_set(err, LF_EUNSUPPORTED, "the Vulkan loader is version %u.%u, and 1.2 is needed",
                     VK_API_VERSION_MAJOR(volkGetInstanceVersion()), VK_API_VERSION_MINOR(volkGetInstanceVersion()));
        return false;
    }
    mode = asked_mode();
    bool validation = mode != VALIDATION_OFF;
    if (validation && !has_validation_layer()) {
        lf_error_set(err, LF_ENOTFOUND, "LAVAFLOW_VALIDATION is set, but the layer %s is not installed",
                     VALIDATION_LAYER);
        return false;
    }
    const char *layers[] = { VALIDATION_LAYER };
    const char *extensions[] = { VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME };
    const VkValidationFeatureEnableEXT sync = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .enabledValidationFeatureCount = mode == VALIDATION_SYNC,
        .pEnabledValidationFeatures = &sync,
    };
    VkDebugUtilsMessengerCreateInfoEXT messages = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .pNext = &features,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
    };
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validation ? &messages : NULL, // reports on the instance's own creation and end
        .pApplicationInfo = &(VkApplicationInfo){ .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                                  .pApplicationName = "lavaflow",
                                                  .apiVersion = VK_API_VERSION_1_2 },
        .enabledLayerCount = validation,
        .ppEnabledLayerNames = layers,
        .enabledExtensionCount = validation ? 2 : 0,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult result = vkCreateInstance(&info, NULL, &instance);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER) {
        lf_error_set(err, LF_ENOTFOUND, "no Vulkan driver is installed");
        return false;
    }
    if (result != VK_SUCCESS)
        return vk_error(err, result, "cannot create a Vulkan instance");
    volkLoadInstanceOnly(instance);
    if (!validation)
        return true;
    messages.pNext = NULL;
    result = vkCreateDebugUtilsMessengerEXT(instance, &messages, NULL, &messenger);
    if (result == VK_SUCCESS)
        return true;
    destroy();
    return vk_error(err, result, "cannot listen to the Vulkan validation layer");
}

VkInstance vk_instance_acquire(lf_error *err)
{
    pthread_mutex_lock(&lock);
    if (!users && mode != asked_mode())
        destroy();
    if (instance || create(err))
        users++;
    VkInstance got = instance;
    pthread_mutex_unlock(&lock);
    return got;
}

void vk_instance_release(void)
{
    pthread_mutex_lock(&lock);
    users--;
    pthread_mutex_unlock(&lock);
}
