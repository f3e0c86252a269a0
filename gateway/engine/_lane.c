/* The lane: usual chunks of streams go from engines' sockets to clients' without Python looking at each of them.
 *
 * What is usual: one whole chunk of HTTP/1.1, come in one piece, whose payload ends as its ride says, to a client that has
 * nothing of ours waiting. Whatever else comes is handed back as it is. `lane.py` tells what it is for, `_lane.pyi` what
 * there is. One thread, the event loop's; nothing here blocks.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <structmember.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK 64             /* rides served in one look: what is left is the next one's, after everybody else's turn */
#define PIECE (64 * 1024)   /* bytes read at once */

typedef struct {
    PyObject_HEAD
    int epoll;
    char piece[PIECE];
} Lane;

typedef struct {
    PyObject_HEAD
    Lane *lane;
    int source, target;     /* our own duplicates: nobody else closes them, and no number is used again under us */
    PyObject *rider, *waiting, *tail, *kept, *last;
    Py_ssize_t keep, pieces;
    double since;
    char open;
} Ride;

static PyTypeObject Ride_type;

/* Ride */

static int Ride_traverse(Ride *self, visitproc visit, void *arg)
{
    Py_VISIT(self->lane);
    Py_VISIT(self->rider);
    Py_VISIT(self->waiting);
    Py_VISIT(self->kept);
    return 0;
}

static void release(Ride *self)
{
    if (self->source >= 0) {
        epoll_ctl(self->lane->epoll, EPOLL_CTL_DEL, self->source, NULL);
        close(self->source);
        self->source = -1;
    }
    if (self->target >= 0) {
        close(self->target);
        self->target = -1;
    }
    self->open = 0;
}

static int Ride_clear(Ride *self)
{
    if (self->lane != NULL)
        release(self);
    Py_CLEAR(self->rider);
    Py_CLEAR(self->waiting);
    Py_CLEAR(self->kept);
    return 0;
}

static void Ride_dealloc(Ride *self)
{
    PyObject_GC_UnTrack(self);
    Ride_clear(self);
    Py_CLEAR(self->tail);
    Py_CLEAR(self->last);
    Py_CLEAR(self->lane);
    PyObject_GC_Del(self);
}

static PyObject *Ride_leave(Ride *self, PyObject *Py_UNUSED(nothing))
{
    Ride_clear(self);
    Py_RETURN_NONE;
}

static PyMethodDef Ride_methods[] = {
    {"leave", (PyCFunction)Ride_leave, METH_NOARGS, "Off the lane, for good. May be called twice."},
    {NULL},
};

static PyMemberDef Ride_members[] = {
    {"rider", T_OBJECT, offsetof(Ride, rider), READONLY, NULL},
    {"open", T_BOOL, offsetof(Ride, open), 0, NULL},
    {"pieces", T_PYSSIZET, offsetof(Ride, pieces), 0, NULL},
    {"keep", T_PYSSIZET, offsetof(Ride, keep), 0, NULL},
    {"last", T_OBJECT, offsetof(Ride, last), READONLY, NULL},
    {"since", T_DOUBLE, offsetof(Ride, since), READONLY, NULL},
    {NULL},
};

static PyTypeObject Ride_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gateway.engine._lane.Ride",
    .tp_basicsize = sizeof(Ride),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "One stream on the lane.",
    .tp_dealloc = (destructor)Ride_dealloc,
    .tp_traverse = (traverseproc)Ride_traverse,
    .tp_clear = (inquiry)Ride_clear,
    .tp_methods = Ride_methods,
    .tp_members = Ride_members,
};

/* Lane */

static PyObject *Lane_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Lane *self = (Lane *)type->tp_alloc(type, 0);
    if (self == NULL)
        close(epoll);
    else
        self->epoll = epoll;
    return (PyObject *)self;
}

static void Lane_dealloc(Lane *self)
{
    close(self->epoll);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *Lane_fileno(Lane *self, PyObject *Py_UNUSED(nothing))
{
    return PyLong_FromLong(self->epoll);
}

static PyObject *Lane_enter(Lane *self, PyObject *args)
{
    int source, target;
    PyObject *rider, *waiting, *tail, *kept;
    Py_ssize_t keep;
    if (!PyArg_ParseTuple(args, "OiiOSO!n:enter", &rider, &source, &target, &waiting, &tail, &PyList_Type, &kept, &keep))
        return NULL;
    Ride *ride = PyObject_GC_New(Ride, &Ride_type);
    if (ride == NULL)
        return NULL;
    ride->lane = (Lane *)Py_NewRef(self);
    ride->rider = Py_NewRef(rider);
    ride->waiting = Py_NewRef(waiting);
    ride->tail = Py_NewRef(tail);
    ride->kept = Py_NewRef(kept);
    ride->last = NULL;
    ride->keep = keep;
    ride->pieces = 0;
    ride->since = 0;
    ride->open = 1;
    ride->source = fcntl(source, F_DUPFD_CLOEXEC, 0);
    ride->target = fcntl(target, F_DUPFD_CLOEXEC, 0);
    PyObject_GC_Track(ride);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = ride};
    if (ride->source < 0 || ride->target < 0 || epoll_ctl(self->epoll, EPOLL_CTL_ADD, ride->source, &event) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(ride);
        return NULL;
    }
    return (PyObject *)ride;
}

/* Where the payload begins, if these bytes are one whole chunk as everybody writes it (hex in lower case, no leading
 * zero, no extension) and its payload ends with `tail`; else 0. */
static Py_ssize_t framed(const char *piece, Py_ssize_t size, PyObject *tail)
{
    Py_ssize_t at = 0, payload = 0, ends = PyBytes_GET_SIZE(tail);
    for (; at < size && at < 6; at++) {
        char c = piece[at];
        if (c >= '0' && c <= '9')
            payload = payload * 16 + c - '0';
        else if (c >= 'a' && c <= 'f')
            payload = payload * 16 + c - 'a' + 10;
        else
            break;
    }
    if (at == 0 || piece[0] == '0' || at + payload + 4 != size || payload < ends)
        return 0;
    if (memcmp(piece + at, "\r\n", 2) || memcmp(piece + size - 2, "\r\n", 2))
        return 0;
    return memcmp(piece + size - 2 - ends, PyBytes_AS_STRING(tail), ends) ? 0 : at + 2;
}

/* Whether nothing of ours waits to be sent to the client. Who cannot tell is asked nothing more. */
static int clear(Ride *ride)
{
    PyObject *waiting = PyObject_CallNoArgs(ride->waiting);
    long bytes = waiting == NULL ? -1 : PyLong_AsLong(waiting);
    Py_XDECREF(waiting);
    if (bytes == -1)
        PyErr_Clear();
    return bytes == 0;
}

static int hand_back(PyObject *odd, Ride *ride, const char *piece, Py_ssize_t size, int spilled)
{
    PyObject *one = Py_BuildValue("(Oy#O)", ride, piece, size, spilled ? Py_True : Py_False);
    int failed = one == NULL || PyList_Append(odd, one);
    Py_XDECREF(one);
    return failed ? -1 : 0;
}

static int pass_on(Ride *ride, const char *piece, Py_ssize_t size, Py_ssize_t at, PyObject *odd)
{
    PyObject *payload = PyBytes_FromStringAndSize(piece + at, size - at - 2);
    if (payload == NULL)
        return -1;
    if (ride->keep > 0) {
        ride->keep -= PyBytes_GET_SIZE(payload);
        if (PyList_Append(ride->kept, payload)) {
            Py_DECREF(payload);
            return -1;
        }
    }
    Py_XSETREF(ride->last, payload);
    ride->pieces++;
    ssize_t sent = send(ride->target, piece, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == size)
        return 0;
    ride->open = 0;
    if (sent < 0)
        sent = 0;  /* the loop's transport will find out why */
    return hand_back(odd, ride, piece + sent, size - sent, 1);
}

static int serve(Lane *self, Ride *ride, double now, PyObject *odd)
{
    if (ride->source < 0)
        return 0;
    ssize_t size = recv(ride->source, self->piece, PIECE, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    if (size <= 0) {  /* the loop's transport will find it out, too */
        ride->open = 0;
        return hand_back(odd, ride, "", 0, 0);
    }
    ride->since = now;
    Py_ssize_t at = ride->open ? framed(self->piece, size, ride->tail) : 0;
    int more = at && ride->keep > 0 && ride->keep <= size - at - 2;  /* than is kept: not for us to say so */
    if (at && !more && clear(ride))
        return pass_on(ride, self->piece, size, at, odd);
    ride->open = 0;
    return hand_back(odd, ride, self->piece, size, 0);
}

static PyObject *Lane_look(Lane *self, PyObject *arg)
{
    double now = PyFloat_AsDouble(arg);
    if (now == -1 && PyErr_Occurred())
        return NULL;
    struct epoll_event events[LOOK];
    int count = epoll_wait(self->epoll, events, LOOK, 0);
    if (count < 0 && errno != EINTR)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *odd = PyList_New(0);
    if (odd == NULL)
        return NULL;
    for (int i = 0; i < count; i++)  /* what is called may let go of them */
        Py_INCREF((PyObject *)events[i].data.ptr);
    int failed = 0;
    for (int i = 0; i < count; i++) {
        Ride *ride = events[i].data.ptr;
        failed = failed || serve(self, ride, now, odd);
        Py_DECREF(ride);
    }
    if (failed)
        Py_CLEAR(odd);
    return odd;
}

static PyMethodDef Lane_methods[] = {
    {"fileno", (PyCFunction)Lane_fileno, METH_NOARGS, "What becomes readable when there is something to look at."},
    {"enter", (PyCFunction)Lane_enter, METH_VARARGS, "A ride for what comes from `source`, to `target`."},
    {"look", (PyCFunction)Lane_look, METH_O, "Pass on what is there; what was not usual is returned."},
    {NULL},
};

static PyTypeObject Lane_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gateway.engine._lane.Lane",
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Streams whose usual chunks pass by.",
    .tp_new = Lane_new,
    .tp_dealloc = (destructor)Lane_dealloc,
    .tp_methods = Lane_methods,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "gateway.engine._lane", .m_size = -1};

PyMODINIT_FUNC PyInit__lane(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && (PyModule_AddType(made, &Lane_type) || PyModule_AddType(made, &Ride_type)))
        Py_CLEAR(made);
    return made;
}
