/* dlfenc: each video frame becomes a .dlf file. */
#include <gst/video/gstvideoencoder.h>
#include <gst/video/video.h>

#include "gstdlf.h"

#define GST_TYPE_DLF_ENC (gst_dlf_enc_get_type())
G_DECLARE_FINAL_TYPE(GstDlfEnc, gst_dlf_enc, GST, DLF_ENC, GstVideoEncoder)

struct _GstDlfEnc {
    GstVideoEncoder parent;
    GstDlfCodec codec;
    GstVideoInfo format;
};

G_DEFINE_TYPE(GstDlfEnc, gst_dlf_enc, GST_TYPE_VIDEO_ENCODER)
GST_ELEMENT_REGISTER_DEFINE(dlfenc, "dlfenc", GST_RANK_NONE, GST_TYPE_DLF_ENC)

static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE("{ RGB, GRAY8 }")));
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_DLF_CAPS ", framed = (boolean) true"));

static gboolean start(GstVideoEncoder *encoder) {
    return gst_dlf_codec_start(&GST_DLF_ENC(encoder)->codec, GST_ELEMENT(encoder), DLF_PREPARE_ENCODE);
}

static gboolean stop(GstVideoEncoder *encoder) {
    gst_dlf_codec_stop(&GST_DLF_ENC(encoder)->codec);
    return TRUE;
}

static gboolean set_format(GstVideoEncoder *encoder, GstVideoCodecState *state) {
    GST_DLF_ENC(encoder)->format = state->info;
    gst_video_codec_state_unref(
        gst_video_encoder_set_output_state(encoder, gst_static_pad_template_get_caps(&src_template), state));
    return TRUE;
}

static GstFlowReturn handle_frame(GstVideoEncoder *encoder, GstVideoCodecFrame *frame) {
    GstDlfEnc *self = GST_DLF_ENC(encoder);
    GstVideoFrame video;
    if (!gst_video_frame_map(&video, &self->format, frame->input_buffer, GST_MAP_READ)) {
        GST_ELEMENT_ERROR(self, RESOURCE, READ, (NULL), ("The frame cannot be mapped."));
        gst_video_codec_frame_unref(frame);
        return GST_FLOW_ERROR;
    }
    const dlf_image image = {
        .struct_size = sizeof image,
        .width = (uint32_t)GST_VIDEO_FRAME_WIDTH(&video),
        .height = (uint32_t)GST_VIDEO_FRAME_HEIGHT(&video),
        .format = GST_VIDEO_FRAME_FORMAT(&video) == GST_VIDEO_FORMAT_GRAY8 ? DLF_PIXELS_GRAY8 : DLF_PIXELS_RGB8,
        .stride = (size_t)GST_VIDEO_FRAME_PLANE_STRIDE(&video, 0),
        .pixels = GST_VIDEO_FRAME_PLANE_DATA(&video, 0),
    };
    uint8_t *data = NULL;
    size_t size = 0;
    const dlf_result result = dlf_encode(self->codec.context, &image, NULL, &data, &size);
    gst_video_frame_unmap(&video);
    if (result != DLF_OK) {
        GST_ELEMENT_ERROR(self, STREAM, ENCODE, ("%s", dlf_context_message(self->codec.context)), (NULL));
        gst_video_codec_frame_unref(frame);
        return GST_FLOW_ERROR;
    }
    frame->output_buffer = gst_buffer_new_wrapped_full(0, data, size, 0, size, data, dlf_free); /* libdlf's buffer, not a copy */
    GST_VIDEO_CODEC_FRAME_SET_SYNC_POINT(frame);
    return gst_video_encoder_finish_frame(encoder, frame);
}

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    (void)id, (void)spec; /* there is only one */
    gst_dlf_codec_set_bundle(&GST_DLF_ENC(object)->codec, value);
}

static void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
    (void)id, (void)spec;
    gst_dlf_codec_get_bundle(&GST_DLF_ENC(object)->codec, value);
}

static void finalize(GObject *object) {
    gst_dlf_codec_clear(&GST_DLF_ENC(object)->codec);
    G_OBJECT_CLASS(gst_dlf_enc_parent_class)->finalize(object);
}

static void gst_dlf_enc_init(GstDlfEnc *self) { (void)self; }

static void gst_dlf_enc_class_init(GstDlfEncClass *self_class) {
    GObjectClass *object_class = G_OBJECT_CLASS(self_class);
    object_class->set_property = set_property;
    object_class->get_property = get_property;
    object_class->finalize = finalize;
    gst_dlf_codec_install_property(object_class);

    GstElementClass *element_class = GST_ELEMENT_CLASS(self_class);
    gst_element_class_set_static_metadata(element_class, "DLF encoder", "Codec/Encoder/Image", "Encodes images with libdlf",
                                          "dlf");
    gst_element_class_add_static_pad_template(element_class, &sink_template);
    gst_element_class_add_static_pad_template(element_class, &src_template);

    GstVideoEncoderClass *encoder_class = GST_VIDEO_ENCODER_CLASS(self_class);
    encoder_class->start = start;
    encoder_class->stop = stop;
    encoder_class->set_format = set_format;
    encoder_class->handle_frame = handle_frame;
}
