/* dlfdec: each .dlf file becomes a video frame. */
#include <gst/video/gstvideodecoder.h>
#include <gst/video/video.h>

#include "gstdlf.h"

#define GST_TYPE_DLF_DEC (gst_dlf_dec_get_type())
G_DECLARE_FINAL_TYPE(GstDlfDec, gst_dlf_dec, GST, DLF_DEC, GstVideoDecoder)

struct _GstDlfDec {
    GstVideoDecoder parent;
    GstDlfCodec codec;
    GstVideoCodecState *input;
};

G_DEFINE_TYPE(GstDlfDec, gst_dlf_dec, GST_TYPE_VIDEO_DECODER)
GST_ELEMENT_REGISTER_DEFINE(dlfdec, "dlfdec", GST_RANK_NONE, GST_TYPE_DLF_DEC)

static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_DLF_CAPS));
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE("RGB")));

static gboolean start(GstVideoDecoder *decoder) {
    return gst_dlf_codec_start(&GST_DLF_DEC(decoder)->codec, GST_ELEMENT(decoder), DLF_PREPARE_DECODE);
}

static gboolean stop(GstVideoDecoder *decoder) {
    GstDlfDec *self = GST_DLF_DEC(decoder);
    gst_dlf_codec_stop(&self->codec);
    g_clear_pointer(&self->input, gst_video_codec_state_unref);
    return TRUE;
}

static gboolean set_format(GstVideoDecoder *decoder, GstVideoCodecState *state) {
    GstDlfDec *self = GST_DLF_DEC(decoder);
    gboolean framed = FALSE;
    gst_structure_get_boolean(gst_caps_get_structure(state->caps, 0), "framed", &framed);
    gst_video_decoder_set_packetized(decoder, framed);
    g_clear_pointer(&self->input, gst_video_codec_state_unref);
    self->input = gst_video_codec_state_ref(state);
    return TRUE;
}

/* A stream that is not framed, such as filesrc's: a .dlf file does not contain its length, so it is the whole stream. */
static GstFlowReturn parse(GstVideoDecoder *decoder, GstVideoCodecFrame *frame, GstAdapter *adapter, gboolean at_eos) {
    (void)frame;
    if (!at_eos)
        return GST_VIDEO_DECODER_FLOW_NEED_DATA;
    gst_video_decoder_add_to_frame(decoder, (int)gst_adapter_available(adapter));
    return gst_video_decoder_have_frame(decoder);
}

/* Decode into a new output buffer of the frame. Failures are posted as errors of the element. */
static GstFlowReturn decode(GstDlfDec *self, GstVideoCodecFrame *frame, const GstMapInfo *file) {
    GstVideoDecoder *decoder = GST_VIDEO_DECODER(self);
    dlf_file_info header = {.struct_size = sizeof header};
    char message[256];
    const dlf_result parsed = dlf_file_parse(file->data, file->size, NULL, &header, message, sizeof message);
    if (parsed != DLF_OK) {
        GST_ELEMENT_ERROR(self, STREAM, DECODE, ("%s", message), (NULL));
        return GST_FLOW_ERROR;
    }
    GstVideoCodecState *state =
        gst_video_decoder_set_output_state(decoder, GST_VIDEO_FORMAT_RGB, header.width, header.height, self->input);
    GstVideoInfo format = state->info;
    gst_video_codec_state_unref(state);
    const GstFlowReturn allocated = gst_video_decoder_allocate_output_frame(decoder, frame);
    if (allocated != GST_FLOW_OK)
        return allocated;

    GstVideoFrame video;
    if (!gst_video_frame_map(&video, &format, frame->output_buffer, GST_MAP_WRITE)) {
        GST_ELEMENT_ERROR(self, RESOURCE, WRITE, (NULL), ("The frame cannot be mapped."));
        return GST_FLOW_ERROR;
    }
    dlf_image image = {
        .struct_size = sizeof image,
        .format = DLF_PIXELS_RGB8,
        .stride = (size_t)GST_VIDEO_FRAME_PLANE_STRIDE(&video, 0),
        .pixels = GST_VIDEO_FRAME_PLANE_DATA(&video, 0),
    };
    const dlf_result result = dlf_decode_into(self->codec.context, file->data, file->size, &image, image.stride * header.height);
    gst_video_frame_unmap(&video);
    if (result != DLF_OK) {
        GST_ELEMENT_ERROR(self, STREAM, DECODE, ("%s", dlf_context_message(self->codec.context)), (NULL));
        return GST_FLOW_ERROR;
    }
    return GST_FLOW_OK;
}

static GstFlowReturn handle_frame(GstVideoDecoder *decoder, GstVideoCodecFrame *frame) {
    GstMapInfo file;
    GstFlowReturn result = GST_FLOW_ERROR;
    if (gst_buffer_map(frame->input_buffer, &file, GST_MAP_READ)) {
        result = decode(GST_DLF_DEC(decoder), frame, &file);
        gst_buffer_unmap(frame->input_buffer, &file);
    } else {
        GST_ELEMENT_ERROR(decoder, RESOURCE, READ, (NULL), ("The file cannot be mapped."));
    }
    if (result == GST_FLOW_OK)
        return gst_video_decoder_finish_frame(decoder, frame);
    gst_video_decoder_release_frame(decoder, frame);
    return result;
}

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    (void)id, (void)spec; /* there is only one */
    gst_dlf_codec_set_bundle(&GST_DLF_DEC(object)->codec, value);
}

static void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
    (void)id, (void)spec;
    gst_dlf_codec_get_bundle(&GST_DLF_DEC(object)->codec, value);
}

static void finalize(GObject *object) {
    gst_dlf_codec_clear(&GST_DLF_DEC(object)->codec);
    G_OBJECT_CLASS(gst_dlf_dec_parent_class)->finalize(object);
}

static void gst_dlf_dec_init(GstDlfDec *self) { gst_video_decoder_set_packetized(GST_VIDEO_DECODER(self), FALSE); }

static void gst_dlf_dec_class_init(GstDlfDecClass *self_class) {
    GObjectClass *object_class = G_OBJECT_CLASS(self_class);
    object_class->set_property = set_property;
    object_class->get_property = get_property;
    object_class->finalize = finalize;
    gst_dlf_codec_install_property(object_class);

    GstElementClass *element_class = GST_ELEMENT_CLASS(self_class);
    gst_element_class_set_static_metadata(element_class, "DLF decoder", "Codec/Decoder/Image", "Decodes images with libdlf",
                                          "dlf");
    gst_element_class_add_static_pad_template(element_class, &sink_template);
    gst_element_class_add_static_pad_template(element_class, &src_template);

    GstVideoDecoderClass *decoder_class = GST_VIDEO_DECODER_CLASS(self_class);
    decoder_class->start = start;
    decoder_class->stop = stop;
    decoder_class->set_format = set_format;
    decoder_class->parse = parse;
    decoder_class->handle_frame = handle_frame;
}
