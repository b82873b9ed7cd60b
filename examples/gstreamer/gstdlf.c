/* A GStreamer plugin over libdlf: dlfenc and dlfdec.
 *
 *     export DLF_MODEL=$(python -m dlf.config --model)
 *     gst-launch-1.0 filesrc location=x.png ! pngdec ! videoconvert ! dlfenc ! filesink location=x.dlf
 *     gst-launch-1.0 filesrc location=x.dlf ! dlfdec ! videoconvert ! pngenc ! filesink location=y.png
 *
 *     cc -shared -fPIC gstdlf.c gstdlfenc.c gstdlfdec.c $(pkg-config --cflags --libs gstreamer-video-1.0) \
 *         $(python -m dlf.config --cflags --libs) -o libgstdlf.so        # in a folder of GST_PLUGIN_PATH
 */
#include "gstdlf.h"

enum { PROP_BUNDLE = 1 };

void gst_dlf_codec_install_property(GObjectClass *object_class) {
    g_object_class_install_property(
        object_class, PROP_BUNDLE,
        g_param_spec_string("bundle", "Bundle", "The folder of the model; without it, what the environment's DLF_MODEL says",
                            NULL, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
}

void gst_dlf_codec_set_bundle(GstDlfCodec *codec, const GValue *value) {
    g_free(codec->bundle);
    codec->bundle = g_value_dup_string(value);
}

void gst_dlf_codec_get_bundle(const GstDlfCodec *codec, GValue *value) { g_value_set_string(value, codec->bundle); }

gboolean gst_dlf_codec_start(GstDlfCodec *codec, GstElement *element, guint prepare) {
    const gchar *bundle = codec->bundle != NULL ? codec->bundle : g_getenv("DLF_MODEL");
    if (bundle == NULL) {
        GST_ELEMENT_ERROR(element, RESOURCE, SETTINGS, ("No model; set the property bundle, or DLF_MODEL."), (NULL));
        return FALSE;
    }
    if (dlf_model_open(bundle, NULL, &codec->model) != DLF_OK) {
        GST_ELEMENT_ERROR(element, RESOURCE, OPEN_READ, ("%s", dlf_model_message(codec->model)), (NULL));
    } else if (dlf_context_create(codec->model, NULL, &codec->context) != DLF_OK) {
        GST_ELEMENT_ERROR(element, RESOURCE, NO_SPACE_LEFT, ("Not enough memory."), (NULL));
    } else if (dlf_context_prepare(codec->context, prepare) != DLF_OK) {
        GST_ELEMENT_ERROR(element, RESOURCE, OPEN_READ, ("%s", dlf_context_message(codec->context)), (NULL));
    } else {
        return TRUE;
    }
    gst_dlf_codec_stop(codec);
    return FALSE;
}

void gst_dlf_codec_stop(GstDlfCodec *codec) {
    dlf_context_free(codec->context);
    dlf_model_free(codec->model);
    codec->context = NULL;
    codec->model = NULL;
}

void gst_dlf_codec_clear(GstDlfCodec *codec) { g_clear_pointer(&codec->bundle, g_free); }

static gboolean plugin_init(GstPlugin *plugin) {
    return GST_ELEMENT_REGISTER(dlfenc, plugin) && GST_ELEMENT_REGISTER(dlfdec, plugin);
}

#define PACKAGE "dlf"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, dlf, "DLF, a learned image codec", plugin_init, DLF_VERSION, "Apache 2.0",
                  "dlf", "dlf")
