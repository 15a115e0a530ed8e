// Ctrl-C and SIGTERM, for programs whose training loop ends after the step under way.
#pragma once

namespace sg::dist {

/// Asks the training loops of this process to finish their step and end. Set by SIGINT and SIGTERM
/// after install_stop_signals(); a second signal, a tenth of a second later or more, ends the
/// process at once. The handlers run on a thread of their own; the calling thread, and the threads
/// and programs that it starts later, block both signals: a program must unblock them itself.
void install_stop_signals();
bool stop_signalled();

}  // namespace sg::dist
