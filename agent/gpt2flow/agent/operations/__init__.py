"""Operations that implement the actions of the flows.

Each flow has a module, and each operation that a flow file names is one of its
functions. An operation runs inside one database transaction.
"""

from gpt2flow.agent.operations import after_sales, conversation, order, registration, shipping
from gpt2flow.agent.operations.context import Context, Operation, Outcome
from gpt2flow.agent.operations.defaults import infer_arguments
from gpt2flow.agent.operations.registration import new_code

OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (
        conversation.greet,
        conversation.clarify,
        conversation.affirm,
        conversation.deny,
        conversation.escalate,
        registration.register,
        registration.log_in,
        registration.verify,
        registration.resend_code,
        registration.correct_contact,
        registration.correct_name,
        registration.log_out,
        order.find_product,
        order.add_to_cart,
        order.set_quantity,
        order.remove_from_cart,
        order.view_cart,
        order.check_out,
        order.confirm_order,
        order.decline_order,
        order.list_orders,
        order.cancel_order,
        shipping.assign_courier,
        shipping.send_delivery_details,
        shipping.track_order,
        shipping.change_address,
        shipping.confirm_delivery,
        after_sales.answer_question,
        after_sales.request_refund,
        after_sales.request_return,
        after_sales.request_exchange,
        after_sales.schedule_follow_up,
    )
}

__all__ = ["OPERATIONS", "Context", "Operation", "Outcome", "infer_arguments", "new_code"]
