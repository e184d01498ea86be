//! The origin as a whole: real sockets, a real folder of blobs, and a small stand-in for control.

#![cfg(test)]

mod collecting;
mod control;
mod forwarding;
mod kit;
mod reading;
mod uploading;
mod uploads_that_break;
