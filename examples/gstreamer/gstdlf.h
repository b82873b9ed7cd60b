/* Common to the encoder and the decoder element: the model and the context, and the property that names the bundle. */
#ifndef GST_DLF_H
#define GST_DLF_H

#include <dlf.h>
#include <gst/gst.h>

/* A stream of "framed" files has one in each buffer; one without has a single file, which ends with the stream. */
#define GST_DLF_CAPS "image/x-dlf"

GST_ELEMENT_REGISTER_DECLARE(dlfenc)
GST_ELEMENT_REGISTER_DECLARE(dlfdec)

typedef struct {
    gchar *bundle;
    dlf_model *model;
    dlf_context *context;
} GstDlfCodec;

/* Add the property "bundle" to a class whose set_property and get_property call the functions below. */
void gst_dlf_codec_install_property(GObjectClass *object_class);
void gst_dlf_codec_set_bundle(GstDlfCodec *codec, const GValue *value);
void gst_dlf_codec_get_bundle(const GstDlfCodec *codec, GValue *value);

/* Open the bundle and load the stages that are needed (dlf_context_prepare). Failures are posted as errors of the element. */
gboolean gst_dlf_codec_start(GstDlfCodec *codec, GstElement *element, guint prepare);
void gst_dlf_codec_stop(GstDlfCodec *codec);
void gst_dlf_codec_clear(GstDlfCodec *codec);

#endif
