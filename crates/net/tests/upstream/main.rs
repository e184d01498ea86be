//! The client side towards origins, against small servers on real sockets that do exactly what a test says.

#![cfg(test)]

mod fake;
mod http1;
mod http2;
mod pool;
mod retries;
mod servers;
mod tls;
mod upgrade;
mod waits;
