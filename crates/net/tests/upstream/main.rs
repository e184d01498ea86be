//! The client side towards origins, against small servers on real sockets that do exactly what a test says.

mod fake;
mod http1;
mod pool;
mod retries;
mod servers;
mod upgrade;
mod waits;
